"""What one layer of a model puts out: the decode ends there, so that the layers behind it cost nothing."""

import ctypes
from typing import Any

import numpy as np

from .threads import libggml, llama_cpp

#: What llama.cpp's graphs call the output of a layer, before its number.
_OUTPUT = "l_out"


class LayerTap:
    """llama.cpp's look at every node of its graphs, for a context that reads and never answers.

    Each node calls Python, so a context that makes answers has none.
    """

    def __init__(self) -> None:
        self.layer: int | None = None  # counted from 0; None: nothing is taken, the decode goes to its end
        self.taken: np.ndarray[Any, np.dtype[np.float32]] | None = None  # flat: row by row of the last batch
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._look)
        self._name = _ggml("ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)
        self._num_bytes = _ggml("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)
        sizes = (ctypes.c_size_t, ctypes.c_size_t)
        self._copy = _ggml("ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, *sizes)

    def _look(self, tensor: int, is_asked: bool, _: object) -> bool:
        """Whether a node is wanted; of one that was, now that it is computed, whether to go on."""
        if is_asked:
            return self.layer is not None and self._name(tensor) == f"{_OUTPUT}-{self.layer}".encode()
        taken = np.empty(self._num_bytes(tensor) // np.dtype(np.float32).itemsize, np.float32)
        self._copy(tensor, taken.ctypes.data, 0, taken.nbytes)
        self.taken = taken
        return False


def _ggml(name: str, returns: Any, *takes: Any) -> Any:
    """A function that the Python package loads and does not declare."""
    function = getattr(libggml, name)
    function.restype, function.argtypes = returns, takes
    return function
