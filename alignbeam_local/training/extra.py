"""The packages that only training needs: the extra `train`."""

from importlib.util import find_spec

from ..errors import UsageError
from ..llama.threads import sleeping_soon

_PACKAGES = ("accelerate", "torch", "transformers", "safetensors")


def require_extra() -> None:
    """Raises: UsageError: one of them is not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}",
            "pip install 'alignbeam-local[train]' (about a gigabyte; without a GPU take torch's CPU wheels).",
        )


def load_torch(threads: int) -> None:
    """Load torch; its threads sleep soon while they wait, as those of llama.cpp do."""
    with sleeping_soon():
        import torch
    torch.set_num_threads(threads)
