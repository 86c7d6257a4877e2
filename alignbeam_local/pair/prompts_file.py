"""Prompts from a file: JSON Lines with a `prompt` each, or plain text, one a line."""

from pathlib import Path

from ..errors import UsageError
from ..reading import read_text
from ..result_json import parsed_row


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, in order.

    Raises:
        UsageError: the file can't be read, holds none, or has an object without a prompt.
    """
    text = read_text(path, "Give a UTF-8 file with one prompt a line.")
    lines = text.split("\n")  # splitlines would cut JSON strings apart
    prompts = [_prompt(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise UsageError(f"{path} holds no prompt")
    return prompts


def _prompt(line: str, place: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        prompt = parsed_row(line)["prompt"]
    except (ValueError, KeyError, RecursionError):
        prompt = None
    if not isinstance(prompt, str):
        raise UsageError(f"{place} is not a JSON object with a prompt")
    return prompt
