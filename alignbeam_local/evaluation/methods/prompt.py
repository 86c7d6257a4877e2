"""What a method is asked: a question by itself, or a conversation that ends with one."""

from collections.abc import Sequence

from ...prompt.message import Message

Prompt = str | Sequence[Message]


def turns_of(prompt: Prompt) -> list[Message]:
    """What is asked as a conversation."""
    return [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
