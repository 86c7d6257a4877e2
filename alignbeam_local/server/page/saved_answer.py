"""One answer as the page keeps it in its file: what a server's last chunk says of it, and what was asked."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...config import knobs_of
from ...events import Step
from ...heads.answer_head import JudgeRecord
from ...result import Result, json_safe
from ..protocol.answer_object import answer_object

Json = dict[str, Any]
#: Beside the models: what decides an answer. What a machine or its folders are called stays at home.
_SHOWN_KNOBS = tuple(
    name for panel in ("Method", "Steering", "Judge", "Sampling") for name in knobs_of(panel)
)


def saved_answer(
    prompt: str, result: Result, steps: Sequence[Step], record: JudgeRecord | None = None
) -> Json:
    """All that the page shows of an answer; no path is in it.

    Args:
        prompt: what was asked.
        result: what it came to.
        steps: its mixed steps, of all beams.
        record: what is known of the judge, which decides what `on_unsafe = auto` does.
    """
    found = {
        "version": 1,
        "prompt": prompt,
        "system": result.config.get("system"),
        "models": {role: _card(result, role) for role in result.models},
        "knobs": {name: result.config[name] for name in _SHOWN_KNOBS if name in result.config},
        "text": result.text,
        "reasoning": result.reasoning,
        "finish_reason": result.finish_reason,
        "notices": list(result.notices),
        "usage": asdict(result.usage),
        "program": {"version": result.version, "llama_cpp": result.llama_cpp},
        "alignbeam": answer_object(result, steps, record),
    }
    return dict(json_safe(found))


def _card(result: Result, role: str) -> Json | None:
    card = result.models[role]
    if card is None:
        return None
    return {
        "name": card.name,
        "sha256": card.sha256,
        "quantisation": card.quantisation,
        "adapters": [adapter.shown for adapter in card.adapters],
    }
