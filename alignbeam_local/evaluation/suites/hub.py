"""Files of named suites from the Hugging Face Hub, kept in its own cache."""

from functools import partial
from pathlib import Path

from ...errors import AlignBeamError
from ...models.pull import is_offline
from .suites import Fetch, HubFile


def hub_fetch(*, offline: bool) -> Fetch:
    """Brings dataset files here; offline only those of an earlier run."""
    return partial(_fetch, offline=is_offline(offline))


def _fetch(file: HubFile, *, offline: bool) -> Path:
    """Raises: AlignBeamError: it is gated, not there, or the hub does not answer."""
    import huggingface_hub as hub

    try:
        return Path(hub.hf_hub_download(file.repo, file.file, repo_type="dataset", local_files_only=offline))
    except hub.errors.GatedRepoError as error:
        raise AlignBeamError(
            f"{file.repo} is gated: its owner wants its terms accepted",
            f"Accept them at huggingface.co/datasets/{file.repo}, then set HF_TOKEN to that account's token.",
        ) from error
    except hub.errors.LocalEntryNotFoundError as error:
        raise AlignBeamError(
            f"{file.repo}/{file.file} is not here, and the hub can't be asked",
            "Without --offline it is fetched once; or give the path of a file.",
        ) from error
    except Exception as error:  # the hub's refusals, what the network does, a full disk
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AlignBeamError(
            f"{file.repo}/{file.file}: {reason}", "Try again, or give the path of a file."
        ) from error
