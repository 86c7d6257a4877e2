"""How fast a device reads weights and multiplies with them: measured by `bench`, or assumed, and told so."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bench.floor import weights_of
from ..errors import UsageError
from ..models.gguf_reader import Tensor, read_contents
from .kernels import between, row_cost
from .machines import MachineSpec

#: One multiplication and one addition for each weight and row.
OPERATIONS = 2
#: Of one core, measured (docs/scale.md): operations a second with few rows, and with many.
CORE_FEW, CORE_MANY = 52e9, 64e9
#: Bytes a second that two cores were measured to read; the share of a data sheet's bandwidth that is assumed.
RAM_READING, RAM_EFFICIENCY = 45e9, 0.6
#: Nothing of a GPU was measured: shares of its data sheet that are assumed, and no more than that.
GPU_EFFICIENCY, GPU_ARITHMETIC = 0.6, 0.3
#: Data sheets, where none was given: a card of 24 GB; Ethernet of 10 Gbit/s.
GPU_BANDWIDTH, GPU_FLOPS = 900e9, 80e12
NETWORK, LATENCY = 1.25e9, 0.3e-3
#: What a layer costs in any batch, however small it is: operations begin and end (docs/scale.md).
LAYER_SECONDS = 40e-6


@dataclass(frozen=True)
class Rates:
    """What one device reaches: bytes read a second, operations a second with few rows and with many."""

    bytes_per_second: float
    few: float
    many: float

    def operations_per_second(self, rows: float) -> float:
        """Of weights of packed types."""
        return between(rows, self.few, self.many)

    def seconds(self, num_bytes: float, operations: float, rows: float) -> float:
        """What a batch takes: it reads, and then it multiplies."""
        return num_bytes / self.bytes_per_second + operations / self.operations_per_second(rows)


@dataclass(frozen=True)
class MachineRates:
    """The rates of a machine's devices, and what of them is assumed, in words."""

    gpu: Rates
    cpu: Rates
    network: float
    latency: float
    assumed: tuple[str, ...]


def rates_of(machine: MachineSpec, measured: "MeasuredRates | None" = None) -> MachineRates:
    """From what was said of the machine, what was measured, and defaults for the rest.

    Args:
        measured: of a machine's processor with so many threads; arithmetic grows with the cores.
    """
    assumed = []
    if machine.gpus and None in (machine.gpu_bandwidth, machine.gpu_flops):
        assumed.append(f"a GPU has {GPU_BANDWIDTH / 1e9:.0f} GB/s and {GPU_FLOPS / 1e12:.0f} TFLOPS")
    if machine.gpus:
        assumed.append(
            f"of a GPU's bandwidth {GPU_EFFICIENCY:.0%} is reached, of its FLOPS {GPU_ARITHMETIC:.0%}"
        )
    if measured is None:
        of_memory = f"memory read at {RAM_READING / 1e9:.0f} GB/s"
        if machine.ram_bandwidth is not None:
            of_memory = f"of the memory's bandwidth {RAM_EFFICIENCY:.0%} is reached"
        assumed += [of_memory, "a core is as fast as those in docs/scale.md"]
    gpu = Rates(
        GPU_EFFICIENCY * (machine.gpu_bandwidth or GPU_BANDWIDTH),
        *[GPU_ARITHMETIC * (machine.gpu_flops or GPU_FLOPS)] * 2,
    )
    return MachineRates(
        gpu,
        _cpu(machine, measured),
        machine.network or NETWORK,
        LATENCY if machine.latency is None else machine.latency,
        tuple(assumed),
    )


def _cpu(machine: MachineSpec, measured: "MeasuredRates | None") -> Rates:
    if measured is None:
        bandwidth = RAM_EFFICIENCY * machine.ram_bandwidth if machine.ram_bandwidth else RAM_READING
        return Rates(bandwidth, machine.cores * CORE_FEW, machine.cores * CORE_MANY)
    found, scale = measured.rates, machine.cores / measured.threads
    return Rates(found.bytes_per_second, scale * found.few, scale * found.many)


@dataclass(frozen=True)
class MeasuredRates:
    """What a `bench` found of a processor with so many threads."""

    rates: Rates
    threads: int
    source: str


def measured_rates(path: Path) -> MeasuredRates:
    """From what `alignbeam bench --json` printed, with several beams.

    The draft alone has one row a decode, completing has K: the difference is arithmetic, the rest is reading
    and what every layer costs.

    Raises:
        UsageError: it is no such file, or its figures are not of this kind.
        ModelError: the draft's file is not there any more.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return MeasuredRates(_rates(report), int(report["threads"]), str(path))
    except OSError as error:
        raise UsageError(f"--measured {path}: {error.strerror}", "Give what bench --json printed.") from None
    except ZeroDivisionError:
        raise UsageError(
            f"--measured {path}: of one beam, or of no token behind the mixed ones",
            "Bench with several beams, and more new tokens than --depth.",
        ) from None
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise UsageError(
            f"--measured {path}: not what bench --json prints", "alignbeam bench --json > bench.json"
        ) from None


def _rates(report: Mapping[str, Any]) -> Rates:
    alone, config = report["alone"], report["config"]
    several = {each["name"]: each for each in report["methods"]}[f"K={config['beams']}"]
    draft = read_contents(Path(report["models"]["draft"]["path"])).tensors
    weights, layers = weights_of(draft), LAYER_SECONDS * num_layers(draft)
    first, total = (alone[name]["median"] / 1e3 for name in ("first_token_ms", "total_ms"))
    one_row = (total - first) / (alone["new_tokens"] - 1)
    steps = alone["new_tokens"] - config["depth"]
    per_row = (several["phases_ms"]["complete"] / 1e3 / steps - one_row) / (config["beams"] - 1)
    reading = one_row - per_row - layers
    prompt = alone["decoded_tokens"] - alone["new_tokens"] + 1
    many = (first - reading - layers) / prompt
    if min(per_row, reading, many) <= 0:
        raise ValueError("its figures contradict each other")
    few, prompts = sum(row_cost(draft, 1)), row_cost(draft, prompt).body
    return Rates(weights.bytes / reading, OPERATIONS * few / per_row, OPERATIONS * prompts / many)


def num_layers(tensors: Iterable[Tensor]) -> int:
    """How many blocks these tensors are of."""
    return len({tensor.name.split(".")[1] for tensor in tensors if tensor.name.startswith("blk.")})
