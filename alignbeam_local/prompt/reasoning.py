"""Does a model with this template reason before it answers, and can it be silenced?"""

from typing import Literal

from ..errors import ModelError
from .message import Message
from .placeholders import filled
from .rendering import rendered
from .template import ChatTemplate

Thinking = Literal["none", "silenced", "thinks"]

#: How reasoning begins and ends, by model family.
THINK_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)


def thinking_of(template: ChatTemplate) -> tuple[Thinking, str]:
    """Whether a model with this template reasons although it is asked not to, and what ends it."""
    for start, end in THINK_TAGS:
        if start in template.source or end in template.source:
            return _silence(template, start, end), end
    return "none", ""


def refuse_opened_reasoning(template: ChatTemplate) -> None:
    _, answer_start = _answer_start(template, enable_thinking=False)
    for start, end in THINK_TAGS:
        if answer_start.rfind(start) > answer_start.rfind(end):
            raise ModelError(
                f"the chat template begins every answer with {start}, yet models.toml says reasons = false",
                "Take that line out, or give the model a format that does not.",
            )


def _answer_start(template: ChatTemplate, *, enable_thinking: bool) -> tuple[str, str]:
    """A prompt of one question; and of it what the template puts behind the question."""
    prompt = rendered(template, [Message("user", "")], enable_thinking=enable_thinking)
    return prompt, filled(prompt, [""])[-1].text


def _silence(template: ChatTemplate, start: str, end: str) -> Thinking:
    silent, answer_start = _answer_start(template, enable_thinking=False)
    loud, _ = _answer_start(template, enable_thinking=True)
    opened, closed = answer_start.rfind(start), answer_start.rfind(end)
    if opened == closed:  # neither is there: the switch, if there is one, works elsewhere in the prompt
        return "silenced" if silent != loud else "thinks"
    return "silenced" if closed > opened else "thinks"
