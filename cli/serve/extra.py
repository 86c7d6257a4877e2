"""The packages that a server needs, which are an extra."""

from importlib.util import find_spec

from alignbeam_local.errors import UsageError

_PACKAGES = ("starlette", "uvicorn", "prometheus_client")


def require_extra() -> None:
    """Raises: UsageError: a package is missing."""
    if any(find_spec(name) is None for name in _PACKAGES):
        raise UsageError(
            "a server needs packages that are not installed", "pip install 'alignbeam-local[server]'"
        )
