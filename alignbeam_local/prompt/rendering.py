"""A chat template over a conversation, split where the contents stand."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..errors import ModelError
from .message import Message
from .placeholders import Part, filled, is_in_pythons_notation, numbers_in, placeholder
from .template import HINT, ChatTemplate


class _ContentParts(list[dict[str, str]]):
    """A content as the parts that templates of multimodal models loop over; written whole it is nothing.

    So a template that writes contents as they are drops it, where Python's own notation would be a prompt.
    """

    def __str__(self) -> str:
        return ""


_Shape = Callable[[str], Any]


def _as_parts(content: str) -> _ContentParts:
    return _ContentParts([{"type": "text", "text": content}])


def rendered_parts(template: ChatTemplate, messages: Sequence[Message]) -> list[Part]:
    """The rendered template, split where contents stand. Raises: ModelError: it refuses or drops one."""
    return filled(rendered(template, messages), [message.content for message in messages])


def rendered(template: ChatTemplate, messages: Sequence[Message], **flags: bool) -> str:
    """The template with placeholders: contents are strings, or parts where it takes no strings."""
    try:
        return _rendered_as(str, template, messages, **flags)
    except ModelError:
        with suppress(ModelError):
            return _rendered_as(_as_parts, template, messages, **flags)
        raise


def _rendered_as(shape: _Shape, template: ChatTemplate, messages: Sequence[Message], **flags: bool) -> str:
    marked = [{"role": m.role, "content": shape(placeholder(i))} for i, m in enumerate(messages)]
    text = template.render(marked, **flags)
    if is_in_pythons_notation(text):
        raise ModelError("the chat template writes messages in Python's notation", HINT)
    found = numbers_in(text)
    for index, message in enumerate(messages):
        if index not in found:
            raise ModelError(f"the chat template drops the {message.role} message", HINT)
    return text
