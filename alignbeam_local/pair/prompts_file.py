"""Prompts from a file: JSON Lines with a `prompt` each, or plain text, one a line."""

import json
from pathlib import Path

from ..errors import UsageError


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, in order.

    Raises:
        UsageError: the file can't be read, holds none, or has an object without a prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would cut JSON strings apart
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {path}: {error}", "Give a UTF-8 file with one prompt a line.") from None
    prompts = [_prompt(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise UsageError(f"{path} holds no prompt")
    return prompts


def _prompt(line: str, place: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError):
        prompt = None
    if not isinstance(prompt, str):
        raise UsageError(f"{place} is no JSON object with a prompt")
    return prompt
