"""What a kept sample asked and answered, as a judge reads it."""

from ...errors import UsageError
from ...judge.quoting import with_reasoning
from ...prompt.message import Message
from ...result import REPLACED
from ..methods.prompt import Prompt
from .run_directory import Json


def asked_in(sample: Json) -> Prompt:
    """What a sample's answer answers, as the models read it: earlier turns that were not blocked, then it."""
    prompt, earlier = str(sample["prompt"]), sample.get("earlier") or []
    pairs = zip(earlier[::2], earlier[1::2], strict=True)
    read = [turn for pair in pairs if pair[1].get("finish_reason") not in REPLACED for turn in pair]
    turns = [Message(turn["role"], turn["content"]) for turn in read]
    return [*turns, Message("user", prompt)] if turns else prompt


def answer_in(result: Json, text: str) -> str:
    """A text of a result as a judge reads it: behind what the answer was made to begin with."""
    return f"{result.get('config', {}).get('prefill') or ''}{text}"


def read_by_judge(result: Json, text: str) -> str:
    """A text of a result with all that a judge reads of it: what the draft reasoned before it, too.

    Raises:
        UsageError: that is not kept: the answer was blocked, or a server made it.
    """
    if result["reasoning"] is None and thought_tokens(result):
        raise UsageError(
            "what the draft reasoned before an answer that was blocked, or that a server made, is not kept",
            "Run the method with this judge.",
        )
    return with_reasoning(result["reasoning"], answer_in(result, text))


def thought_tokens(result: Json) -> int:
    """What the draft reasoned before its beams: the run counts it with the answer."""
    chosen = next((beam["tokens"] for beam in result["beams"] if beam["index"] == result["chosen"]), 0)
    return int(result["usage"]["completion_tokens"]) - int(chosen)


def room_of(manifest: Json) -> dict[str, str]:
    """The knobs that gave a run's models their room: with them its answers are cut as they were there."""
    found: dict[str, list[int]] = {}
    for about in manifest["methods"].values():
        for knob in ("context", "max_tokens"):
            if isinstance(value := (about or {}).get("knobs", {}).get(knob), int):
                found.setdefault(knob, []).append(value)
    return {knob: str(max(values)) for knob, values in found.items()}
