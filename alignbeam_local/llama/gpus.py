"""The devices that this build of llama.cpp can place layers on."""

import ctypes
import sys
from typing import Any

import psutil

from ..lm.devices import Gpu
from .library import backend
from .threads import libggml, llama_cpp

_GPU, _INTEGRATED_GPU = 1, 2


def supports_gpu() -> bool:
    """Whether this build can place layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def gpus() -> list[Gpu]:
    """The devices that llama.cpp would place layers on, in its order: integrated ones if there are no others.

    Those of one backend only: a second one may show the same GPU again.
    """
    backend()
    handles = [device_handle(index) for index in range(ggml("ggml_backend_dev_count", ctypes.c_size_t))]
    for kind in (_GPU, _INTEGRATED_GPU):
        found = [index for index, handle in enumerate(handles) if _kind(handle) == kind]
        backends = [ggml("ggml_backend_dev_backend_reg", ctypes.c_void_p, handles[index]) for index in found]
        if found:
            return [
                _gpu(index, handles[index])
                for index, backend in zip(found, backends, strict=True)
                if backend == backends[0]
            ]
    return []


def _gpu(index: int, handle: ctypes.c_void_p) -> Gpu:
    name = ggml("ggml_backend_dev_name", ctypes.c_char_p, handle).decode("utf-8", "replace")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml("ggml_backend_dev_memory", None, handle, ctypes.byref(free), ctypes.byref(total))
    if not total.value:  # it does not tell: llama.cpp takes the machine's for it
        free.value, total.value = (getattr(psutil.virtual_memory(), m) for m in ("available", "total"))
    is_host_memory = sys.platform == "darwin" or _kind(handle) == _INTEGRATED_GPU
    return Gpu(index, name, free.value, total.value, is_host_memory)


def _kind(handle: ctypes.c_void_p) -> int:
    return int(ggml("ggml_backend_dev_type", ctypes.c_int, handle))


def device_handle(index: int) -> ctypes.c_void_p:
    """llama.cpp's own of the device with this number."""
    return ctypes.c_void_p(ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t(index)))


def ggml(name: str, returns: Any, *arguments: Any) -> Any:
    """Call a function that the Python package loads and does not declare."""
    function = getattr(libggml, name)
    function.restype = returns
    return function(*arguments)
