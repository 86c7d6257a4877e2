"""AlignBeam Local: borrowed alignment for local models at inference time (arXiv 2606.12342).

As a library: `with alignbeam_local.load(draft="./my.gguf") as engine: engine.answer("...").text`.
Importing this loads no model library; names are loaded when they are first used.
"""

import logging
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import load
    from .config import Config
    from .conversation.conversation import Conversation
    from .engine.engine import Engine
    from .errors import AlignBeamError, Cancelled, ContextFull, ModelError, UsageError
    from .events import AnswerText, BeamText, Done, Event, Judged, Notice, Phase, Step, Withdrawn
    from .prompt.message import Message
    from .result import Result

__version__ = version("alignbeam-local")
__all__ = [
    "AlignBeamError",
    "AnswerText",
    "BeamText",
    "Cancelled",
    "Config",
    "ContextFull",
    "Conversation",
    "Done",
    "Engine",
    "Event",
    "ExamplesRead",
    "Judged",
    "Message",
    "ModelError",
    "Notice",
    "Phase",
    "Result",
    "Step",
    "UsageError",
    "Withdrawn",
    "load",
]
_HOMES = {
    "api": ("load",),
    "config": ("Config",),
    "conversation.conversation": ("Conversation",),
    "engine.engine": ("Engine",),
    "errors": ("AlignBeamError", "Cancelled", "ContextFull", "ModelError", "UsageError"),
    "events": (
        *("AnswerText", "BeamText", "Done", "Event", "ExamplesRead", "Judged"),
        *("Notice", "Phase", "Step", "Withdrawn"),
    ),
    "prompt.message": ("Message",),
    "result": ("Result",),
}
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """A public name, from the module that is its home (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
