"""Which views show an answer: by the flags, and by who reads."""

import sys
from typing import IO

from ..console.terminal import is_dumb, is_terminal
from ..options import Options
from .view import JsonView, NoticeView, PlainView, SilentView, TraceView, View


def answer_view(options: Options, *, draws_markdown: bool = False, sums_up: bool = True) -> View:
    """The answer on stdout, and its story on stderr if a person reads there.

    Args:
        options: what the flags said.
        draws_markdown: on a terminal that can be redrawn; anywhere else the text stays as it is.
        sums_up: the story ends in a line about the answer.
    """
    if options.json:
        return _with_story(JsonView(sys.stdout, trace=options.trace), options, sums_up=sums_up)
    drawn = draws_markdown and is_terminal(sys.stdout) and not is_dumb()
    view = _markdown_view() if drawn else PlainView(sys.stdout)
    return _with_story(_traced(view, options, sys.stderr), options, sums_up=sums_up)


def _markdown_view() -> View:
    from rich.console import Console

    from .markdown_view import MarkdownView

    return MarkdownView(Console(highlight=False))


def silent_view(options: Options, said: set[str], trace_to: IO[str] | None = None, prefix: str = "") -> View:
    """The progress alone, after a prefix; of the notices those that were not said before."""
    view = _traced(SilentView(), options, trace_to)
    return _with_story(view, options, said, progress_only=True, prefix=prefix)


def _with_story(
    inner: View,
    options: Options,
    said: set[str] | None = None,
    *,
    progress_only: bool = False,
    prefix: str = "",
    sums_up: bool = True,
) -> View:
    if options.quiet or not is_terminal(sys.stderr):
        return NoticeView(inner, set() if said is None else said)
    from .story import StoryView

    return StoryView(inner, progress_only=progress_only, prefix=prefix, sums_up=sums_up)


def _traced(inner: View, options: Options, out: IO[str] | None) -> View:
    return TraceView(inner, out) if options.trace and out is not None else inner
