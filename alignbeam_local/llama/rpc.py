"""Devices of other machines, behind llama.cpp's RPC servers.

llama.cpp ends the process where a server can't be reached, is lost or answers nonsense, and waits for one
that is silent without an end. So whoever calls this has asked the address in a child process before
(`machine/servers.py`), and runs below a parent that tells what happened (`cli/console/supervisor.py`).
"""

import ctypes
from functools import cache
from typing import Any

from ..errors import RpcError
from ..last_words import note_reason
from ..lm.devices import DeviceId, Gpu
from . import gpus
from .gpus import ggml
from .library import backend
from .threads import llama_cpp

_ABORT_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_CPU = 0


def supports_rpc() -> bool:
    """Whether this build of llama.cpp was made with GGML_RPC."""
    backend()
    return bool(llama_cpp.llama_supports_rpc())


def server_devices(address: str) -> list[Gpu]:
    """What a server has, and how much of it is free.

    It ends the process where the server can't be reached.

    Raises:
        RpcError: it has no device, or this build has no RPC.
    """
    found = []
    for index, handle in enumerate(_handles(address)):
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml("ggml_backend_dev_memory", None, handle, ctypes.byref(free), ctypes.byref(total))
        found.append(Gpu(index, f"{address}, device {index}", free.value, total.value, False, address))
    return found


def device_handle(device: DeviceId) -> ctypes.c_void_p:
    """llama.cpp's own of a device here or behind a server. Raises: RpcError: as `server_devices`."""
    if isinstance(device, int):
        return gpus.device_handle(device)
    address, _, index = device.rpartition("#")
    return _handles(address)[int(index)]


def print_protocol() -> None:
    """Let llama.cpp say on stdout which protocol this build speaks: the first line of a server that starts.

    Nothing else tells it. The address is none, so that no server does start.
    """
    device = ggml("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int(_CPU))
    start = _function(
        "ggml_backend_rpc_start_server",
        None,
        *([ctypes.c_char_p] * 2),
        *([ctypes.c_size_t] * 2),
        ctypes.c_void_p,
    )
    start(b"no address", None, 1, 1, ctypes.byref(ctypes.c_void_p(device)))


@cache
def _tell_aborts() -> Any:
    """Keep what llama.cpp says where it ends the process; the callback must live as long as that."""
    callback = _ABORT_CALLBACK(lambda text: note_reason(text.decode("utf-8", "replace")))
    ggml("ggml_set_abort_callback", ctypes.c_void_p, callback)
    return callback


def _handles(address: str) -> list[ctypes.c_void_p]:
    _tell_aborts()
    registered = _function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)(address.encode())
    if not registered:
        raise RpcError(f"the RPC server {address} has no device", "Start it with one: --device.")
    server = ctypes.c_void_p(registered)
    count = ggml("ggml_backend_reg_dev_count", ctypes.c_size_t, server)
    return [
        ctypes.c_void_p(ggml("ggml_backend_reg_dev_get", ctypes.c_void_p, server, ctypes.c_size_t(index)))
        for index in range(count)
    ]


def _function(name: str, returns: Any, *takes: Any) -> Any:
    """A function of the RPC backend, which the Python package does not declare.

    Raises:
        RpcError: this build has none.
    """
    backend()
    registry = ggml("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p(b"RPC"))
    address = registry and ggml(
        "ggml_backend_reg_get_proc_address",
        ctypes.c_void_p,
        ctypes.c_void_p(registry),
        ctypes.c_char_p(name.encode()),
    )
    if not address:
        raise RpcError("this llama.cpp was built without RPC")
    return ctypes.CFUNCTYPE(returns, *takes)(address)
