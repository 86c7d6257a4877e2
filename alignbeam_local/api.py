"""The project as a library: from model names and knobs to an engine that is ready to answer."""

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from .config import KNOBS, unknown_knob
from .engine.engine import Engine
from .models.registry import Registry
from .settings import resolve


def load(
    draft: str | os.PathLike[str] | None = None,
    anchor: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    judge: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **knobs: Any,
) -> Engine:
    """Open the models and return an engine over them; use it in a `with`, or close it.

    What is not given here is looked up as the commands do it: `ALIGNBEAM_` variables, the profile that is
    named, config.toml, the default profile.

    Args:
        draft: the specialist: a name, a path or hf:owner/repo/file.gguf. Likewise `anchor` and `judge`; of
            anchors there may be several.
        environ: variables to read in place of the process's own; `{}` reads none.
        knobs: any knob by its name, such as `alpha`, `beams` or `profile`.

    Raises:
        UsageError: an unknown knob, a value out of range, a model that no role names.
        ModelError: a model is not here, is damaged, does not fit the pair or this machine.
    """
    for name in knobs.keys() - {*KNOBS}:
        raise unknown_knob(name, "load")
    models = {"draft": draft, "anchor": anchor, "judge": judge}
    given = {role: _named(model) for role, model in models.items() if model is not None} | knobs
    registry = Registry.load()
    environment = os.environ if environ is None else environ
    settings = resolve(given, registry, environment, name_of=str).one_at_a_time()
    if settings.left_out:
        warnings.warn(settings.left_out, stacklevel=2)
    with ExitStack() as opened:
        engine = opened.enter_context(Engine(settings.config, registry))
        for _ in engine.load():
            pass
        opened.pop_all()
    return engine


def _named(model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> str | list[str]:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else [os.fspath(one) for one in model]
