"""Files of named suites from the Hugging Face Hub, kept in its own cache."""

from functools import partial
from pathlib import Path

from ...errors import AlignBeamError
from ...models.hub_client import endpoint, hub_library, network_hint
from ...models.pull import is_offline
from ...paths import user_path
from .suites import Fetch, HubFile


def hub_fetch(*, offline: bool) -> Fetch:
    """Brings dataset files here; offline only those of an earlier run."""
    return partial(_fetch, offline=is_offline(offline))


def _fetch(file: HubFile, *, offline: bool) -> Path:
    """Raises: AlignBeamError: it is gated, not there, or the hub does not answer."""
    hub, address = hub_library(), endpoint()
    cache = user_path(hub.constants.HF_HUB_CACHE)
    try:
        fetched = hub.hf_hub_download(
            file.repo,
            file.file,
            repo_type="dataset",
            local_files_only=offline,
            cache_dir=cache,
            endpoint=address,
        )
        return Path(fetched)
    except hub.errors.GatedRepoError as error:
        raise AlignBeamError(
            f"{file.repo} is gated: its owner wants its terms accepted",
            f"Accept them at huggingface.co/datasets/{file.repo}, then set HF_TOKEN to that account's token.",
        ) from error
    except hub.errors.LocalEntryNotFoundError as error:
        raise AlignBeamError(
            f"{file.repo}/{file.file} is not here, and the hub can't be asked",
            f"{'Without --offline it is fetched once' if offline else network_hint()};"
            " or give the path of a file.",
        ) from error
    except Exception as error:  # the hub's refusals, what the network does, a full disk
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AlignBeamError(
            f"{file.repo}/{file.file}: {reason}",
            f"{network_hint()}; fetched files are kept in {cache}. Or give the path of a file.",
        ) from error
