"""A file of tokens on a terminal, off it, and as JSON."""

import sys
from collections.abc import Iterator

from alignbeam_local.result_json import json_line
from alignbeam_local.tokens.token_file import Source, TokenFile

from ..console.tables import plain_table, table_console
from ..console.terminal import for_stream, printable

_VALUES = {"difference": "d(v)", "rejections": "rejections", "random": "-"}
_PROMPTS = {"template": "", "raw": ", its prompts as they are", "dialogue": ", its prompts as a dialogue"}


def print_tokens(file: TokenFile, *, as_json: bool) -> None:
    """What it was found from, then its tokens, those that count most first."""
    if as_json:
        print(for_stream(json_line(file.model_dump(mode="json")), sys.stdout))
        return
    print(for_stream(printable(summary(file)), sys.stdout))
    rows = [
        (str(rank), str(token.id), repr(token.text), _value(file, token.d))
        for rank, token in enumerate(file.tokens, 1)
    ]
    titles = ("#", "id", "token", _VALUES[file.kind])
    table_console().print(plain_table(titles, rows, names=3))


def summary(file: TokenFile) -> str:
    """What the tokens rest on, in a sentence."""
    tokens = f"{len(file.tokens)} tokens"
    if file.kind == "random":
        return f"{tokens} of {file.safe.name}'s vocabulary, drawn at random: a control"
    if file.kind == "rejections":
        return f"{tokens} that {' and '.join(_rejections(file))} share"
    which = "answers, whether they decline or not" if file.every_answer else "answers that decline"
    answers = f"{file.answers} of its {which}, {file.positions} positions"
    share = "" if file.share is None else f"; they hold {file.share:.0%} of all that it gives more"
    against = _source(file.base) if file.base else "nothing"
    return f"{tokens} that {_source(file.safe)} prefers to {against}: {answers}{share}"


def _rejections(file: TokenFile) -> Iterator[str]:
    """Whose rejections tokens were found in: the model's own, the shipped ones, which no model said."""
    if file.answers:
        yield f"{file.answers} rejections of {_source(file.safe)} ({file.positions} positions)"
    if file.templates:
        yield f"{file.templates} shipped rejections, in the vocabulary of {file.safe.name},"
    if file.templates is None and not file.answers:  # a file that does not say
        yield f"rejections, in the vocabulary of {file.safe.name},"


def _source(source: Source) -> str:
    return " + ".join([source.name, *source.adapters]) + _PROMPTS[source.prompt]


def _value(file: TokenFile, value: float) -> str:
    return {"difference": f"{value:.5f}", "rejections": f"{value:.0f}", "random": ""}[file.kind]
