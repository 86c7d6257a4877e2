"""The package that only clusters need: the extra `ray`."""

from importlib.util import find_spec

from ..errors import UsageError


def require_extra() -> None:
    """Raises: UsageError: it is not installed."""
    if find_spec("ray") is None:
        raise UsageError(
            "--ray needs Ray, which is not installed", "pip install 'alignbeam-local[ray]', on every machine."
        )
