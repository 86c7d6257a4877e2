"""Machines as a person describes them: `gpu=24G,ram=64G,cores=16`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ..errors import UsageError, did_you_mean

_EXAMPLE = "Such as --machine gpu=24G,ram=64G,cores=16"
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([KMGT]?)")
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MOST_GPUS, _MOST_CORES = 16, 4096


@dataclass(frozen=True)
class MachineSpec:
    """One machine; what was not said is None, and assumed by whoever needs it.

    Attributes:
        gpus: the memory of each GPU, in bytes.
        ram: the machine's own memory, in bytes.
        cores: physical cores that compute.
        gpu_bandwidth: bytes that one GPU reads of its memory a second, by its data sheet.
        gpu_flops: operations of one GPU a second, by its data sheet.
        ram_bandwidth: bytes that all cores read of the machine's memory a second.
        network: bytes a second to another machine.
        latency: seconds that a message to another machine takes, there and back.
        price: of one machine an hour, in whatever currency.
    """

    gpus: tuple[int, ...] = ()
    ram: int = 0
    cores: int = 1
    gpu_bandwidth: float | None = None
    gpu_flops: float | None = None
    ram_bandwidth: float | None = None
    network: float | None = None
    latency: float | None = None
    price: float | None = None

    @classmethod
    def parse(cls, text: str) -> "MachineSpec":
        """From words joined by commas.

        Raises:
            UsageError: a word that is none, twice, or no number; or there is no memory.
        """
        given: dict[str, Any] = {}
        for word in text.split(","):
            name, _, value = word.strip().partition("=")
            if name not in _KEYS:
                hint = did_you_mean(name, _KEYS, f"Known: {', '.join(_KEYS)}. {_EXAMPLE}")
                raise UsageError(f"--machine {text}: {name!r} is not known", hint)
            field, read = _KEYS[name]
            if field in given:
                raise UsageError(f"--machine {text}: {name} is there twice", "Several GPUs are gpu=24Gx2.")
            given[field] = _read(text, name, value, read)
        if not given.get("ram"):
            raise UsageError(f"--machine {text}: ram is missing", _EXAMPLE)
        return cls(**given)


def _read(text: str, name: str, value: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise UsageError(f"--machine {text}: {name} = {value!r} {error}", _EXAMPLE) from None


def _bytes(text: str) -> int:
    """Memory: 24G are 24 GiB, as it is sold."""
    return round(_number(text) * _BINARY[_parts(text)[1]])


def _gpus(text: str) -> tuple[int, ...]:
    size, times, count = text.partition("x")
    number = int(count) if count.isascii() and count.isdecimal() else 0
    if times and not 1 <= number <= _MOST_GPUS:
        raise ValueError(f"is not a size and a number of GPUs up to {_MOST_GPUS}, such as 24Gx2")
    return (_bytes(size),) * (number if times else 1)


def _rate(text: str) -> float:
    """1000G are 10^12, as data sheets and prices count."""
    return _number(text) * _UNITS[_parts(text)[1]]


def _tera(text: str) -> float:
    return _rate(text) * 1e12


def _milli(text: str) -> float:
    return _rate(text) / 1e3


def _cores(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_CORES):
        raise ValueError(f"is no number from 1 to {_MOST_CORES}")
    return int(text)


def _parts(text: str) -> tuple[str, str]:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("is no number with K, M, G or T behind it")
    return found[1], found[2]


def _number(text: str) -> float:
    number = float(_parts(text)[0])
    if not isfinite(number) or number <= 0:
        raise ValueError("is not above 0")
    return number


_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "gpu": ("gpus", _gpus),
    "ram": ("ram", _bytes),
    "cores": ("cores", _cores),
    "gpu-bandwidth": ("gpu_bandwidth", _rate),
    "gpu-tflops": ("gpu_flops", _tera),
    "ram-bandwidth": ("ram_bandwidth", _rate),
    "network": ("network", _rate),
    "latency-ms": ("latency", _milli),
    "price": ("price", _rate),
}
