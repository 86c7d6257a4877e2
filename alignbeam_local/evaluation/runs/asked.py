"""What a kept sample asked and answered, as a judge reads it."""

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
