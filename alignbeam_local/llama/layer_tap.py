"""What layers of a model put out: the decode ends at the last of them, and those behind it cost nothing."""

import ctypes
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .threads import libggml, llama_cpp

Flat = npt.NDArray[np.float32]  # (n_tokens * n_embd,): a token's after the other's

#: What llama.cpp's graphs call the output of a layer, before its number.
_OUTPUT = "l_out"


class LayerTap:
    """llama.cpp's look at every node of its graphs, for a context that reads and never answers.

    Each node calls Python, so a context that makes answers has none.
    """

    def __init__(self) -> None:
        self._wanted: dict[bytes, int] = {}
        self.taken: dict[int, Flat] = {}  # by layer, of the last batch
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._look)
        self._name = _ggml("ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)
        self._num_bytes = _ggml("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)
        sizes = (ctypes.c_size_t, ctypes.c_size_t)
        self._copy = _ggml("ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, *sizes)

    @property
    def layers(self) -> tuple[int, ...]:
        """What is taken, counted from 0 and in order; if it is nothing, a decode goes to its end."""
        return tuple(self._wanted.values())

    @layers.setter
    def layers(self, layers: Iterable[int]) -> None:
        self._wanted = {f"{_OUTPUT}-{layer}".encode(): layer for layer in sorted(layers)}

    def _look(self, tensor: int, is_asked: bool, _: object) -> bool:
        """Whether a node is wanted; of one that was, now that it is computed, whether to go on."""
        name = self._name(tensor)
        if is_asked:
            return name in self._wanted
        taken = np.empty(self._num_bytes(tensor) // np.dtype(np.float32).itemsize, np.float32)
        self._copy(tensor, taken.ctypes.data, 0, taken.nbytes)
        self.taken[self._wanted[name]] = taken
        return len(self.taken) < len(self._wanted)


def _ggml(name: str, returns: Any, *takes: Any) -> Any:
    """A function that the Python package loads and does not declare."""
    function = getattr(libggml, name)
    function.restype, function.argtypes = returns, takes
    return function
