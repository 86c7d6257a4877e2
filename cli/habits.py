"""What people type who know ollama, llm or llama.cpp, and what it is called here."""

from collections.abc import Sequence
from itertools import pairwise

MEANT = {
    "run": "Try: alignbeam chat --draft MODEL, or: alignbeam ask --draft MODEL PROMPT",
    "list": "Try: alignbeam models list",
    "ls": "Try: alignbeam models list",
    "pull": "Try: alignbeam models pull MODEL",
    "rm": "Try: alignbeam models rm MODEL",
    "show": "Try: alignbeam models inspect MODEL",
    "create": "Try: alignbeam models import FILE --name NAME",
}
_FLAG_FOR_FILE = ("chat", "start")
_MODEL_FLAGS = ("--model", "-m")
_ONE_PROMPT = 'For one prompt: alignbeam ask "PROMPT"'
_WORDS_AFTER = {
    "chat": f"A chat asks for it when it has begun. {_ONE_PROMPT}",
    "filter": f"Prompts come on stdin, one a line. {_ONE_PROMPT}",
}


def habit_hint(args: Sequence[str]) -> str:
    """What to type instead of arguments that are not taken, where another tool takes them; else nothing.

    Args:
        args: what was typed after `alignbeam`, at least one word.
    """
    if meant := MEANT.get(args[0]):
        return meant
    files = (word for before, word in pairwise(args) if word.endswith(".gguf") and not before.startswith("-"))
    if args[0] in _FLAG_FOR_FILE and (file := next(files, "")):
        return f"Try: alignbeam chat --draft {file}"
    if any(word.partition("=")[0] in _MODEL_FLAGS for word in args):
        return "The model that answers is named by --draft MODEL."
    if " " in args[0].strip():
        return _ONE_PROMPT
    return _WORDS_AFTER.get(args[0], "") if args[1:] and not args[1].startswith("-") else ""
