"""What people paste for a model: addresses of the hub, names that other tools have for it, and folders."""

import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

from ..errors import UsageError

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_PAGES = ("resolve", "blob", "raw", "tree")
_REPOSITORY = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*?)(:[\w.-]+)?")
_HUB_FILE = re.compile(r"\w[\w.-]*/\w[\w.-]*/[^:]+\.gguf")


def unpasted(spec: str) -> str:
    """The same as `hf:owner/repo/file.gguf` if it is an address of a file of the hub; else as it is.

    Raises:
        UsageError: an address that is not of one file of the hub, in its main revision.
    """
    text = re.sub(r"^hf:(?=https?:)", "", spec.strip())
    scheme, _, rest = text.partition("://") if "://" in text else ("", "", text)
    host, _, path = rest.partition("/")
    if scheme == "hf":
        return f"hf:{rest}"
    if scheme in ("http", "https") and host.lower() not in (*_HOSTS, _endpoint_host()):
        raise UsageError(
            f"{text} is not an address of the hub",
            "Download the file, then: alignbeam models import FILE.gguf --name NAME.",
        )
    if scheme in ("http", "https") or (host in _HOSTS and not os.path.exists(text)):
        return f"hf:{_file_of(text, unquote(re.split('[?#]', path)[0]))}"
    return spec


def hint_of_hub(spec: str) -> str:
    """What to write instead of a path that leads nowhere, if it may stand for something of the hub."""
    if _HUB_FILE.fullmatch(spec):
        return f"If it is a file of the hub, write hf:{spec}."
    if repository := _REPOSITORY.fullmatch(spec):
        return f"If it is a repository of the hub, name one of its files: hf:{repository['repo']}/FILE.gguf."
    return ""


def hint_of_folder(path: Path) -> str:
    """What to give instead of a folder that an adapter is in; empty for any other."""
    for inside in ("", "adapter"):
        if (written := path / inside / "adapter.gguf").is_file():
            return f"Give the file in it: {written}."
        if (path / inside / "adapter_config.json").is_file():
            folder = shlex.quote(str(path / inside))
            return f"Make a file of it: alignbeam train export {folder} --base MODEL --out FILE.gguf"
    return ""


def _file_of(text: str, path: str) -> str:
    """owner/repo/file of a path on the hub. Raises: UsageError: it names none, or another revision."""
    owner, repo, *rest = [*filter(None, path.split("/")), "", ""]
    names = [part for part in rest if part]
    if owner in ("datasets", "spaces") or not repo:
        raise UsageError(f"{text} is not a model of the hub", "A file of one: hf:owner/repo/file.gguf.")
    revision = ""
    if names and names[0] in _PAGES:
        revision, names = "".join(names[1:2]), names[2:]
    if not names or not names[-1].endswith(".gguf"):
        raise UsageError(
            f"{text} names no .gguf file", f"Name one: hf:{owner}/{repo.partition(':')[0]}/FILE.gguf."
        )
    if revision not in ("", "main"):
        raise UsageError(
            f"{text} names the revision {revision}, but only main can be pulled",
            "Download the file, then: alignbeam models import FILE.gguf --name NAME.",
        )
    return "/".join([owner, repo, *names])


def _endpoint_host() -> str | None:
    """The host of HF_ENDPOINT, which stands for the hub."""
    return os.environ.get("HF_ENDPOINT", "").partition("://")[2].partition("/")[0].lower() or None
