"""Everything that an answer depends on, looked at before anything is loaded."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..config import Config
from ..errors import AlignBeamError
from ..models.registry import Registry
from ..settings import resolve
from . import machine_checks as machine
from .findings import Finding, problem
from .server_check import servers


def examine(
    flags: Mapping[str, Any], environ: Mapping[str, str], *, verify: bool = False, network: bool = False
) -> Iterator[Finding]:
    """One finding after the other, each as soon as it is known; none of them is raised.

    Args:
        flags, environ: as for `settings.resolve`.
        verify: compute every sha256 anew.
        network: ask whether the hub answers; nothing else here uses the network.
    """
    yield machine.python()
    llama_cpp = machine.llama_cpp()
    yield llama_cpp
    yield from machine.directories()
    yield machine.kept_prefixes()
    yield machine.conversations()
    yield from machine.trusted_hashes()
    try:
        registry = Registry.load()
        settings = resolve(flags, registry, environ)
        config = settings.config
    except AlignBeamError as error:
        yield problem("settings", error)
    else:
        yield from servers(registry)
        for notice in settings.notices:
            yield Finding("lora" if notice == settings.left_out else "knobs", "warning", notice)
        yield Finding("settings", "ok", f"profile {config.profile}" if config.profile else "no profile")
        if llama_cpp.level != "problem":
            yield from _with_llama_cpp(config, registry, verify=verify)
    if network:
        yield machine.hub()
    else:
        yield from machine.hub_address()


def _with_llama_cpp(config: Config, registry: Registry, *, verify: bool) -> Iterator[Finding]:
    from ..llama.library import usable_processors
    from . import model_checks as doctor_models
    from .load import load

    yield machine.gpu()
    yield machine.cores(config)
    yield load(config, usable_processors())
    yield from doctor_models.findings(config, registry, verify=verify)
