"""What an answer asks of the models: batches, by phase, told from the knobs and lengths."""

from collections.abc import Iterator
from typing import NamedTuple

from ..config import Config
from ..lm.sequences import BATCH_TOKENS

#: What a template puts around a question, and the judge around an answer: measured on the shipped models.
TEMPLATE_TOKENS = 30
#: What begins an answer, all that a twin of a gate reads of a prompt.
_HEADER_TOKENS = 4
#: The judge's examples, which it has read before; what it reads around each answer, and around the request:
#: 193 tokens in all of three answers of 40 and a request of 32 (`bench --json`, `decoded_tokens`).
_EXAMPLE_CELLS, _QUESTION_ROWS, _REQUEST_ROWS = 1000, 8, 17
#: What ends a turn: an answer head reads the state behind it.
_END_ROWS = 2
#: One token of the draft's may be several of the anchor's.
_ANCHOR_ROWS = 1.1
#: Python's part of a mixed step, a beam (docs/performance.md, "What is not llama.cpp"); processor time.
MIXING_SECONDS = 1.4e-3


class Workload(NamedTuple):
    """How many prompts, how long they are, and how long every answer is, in tokens."""

    prompts: int
    prompt_tokens: int
    new_tokens: int


class Batches(NamedTuple):
    """So many batches of one model, alike: rows, how many of them want logits, cells in use behind them."""

    role: str
    phase: str
    times: float
    rows: float
    heads: float
    cells: float


def batches_of(config: Config, work: Workload) -> list[Batches]:
    """Of as many answers as share batches (`parallel`), none of which ends early or agrees early."""
    return [
        *_reading(config, work),
        *_writing(config, work),
        *(_judging(config, work) if config.judged and not config.judged_by_head else []),
        *(_read_by_head(config, work) if config.reads_answers else []),
    ]


def mixed_steps(config: Config, work: Workload) -> int:
    """Over all beams."""
    return config.parallel * config.beams * _mixed(config, work)


def _mixed(config: Config, work: Workload) -> int:
    return min(config.longest_prefix, work.new_tokens)


def _anchors(config: Config) -> tuple[str, ...]:
    """Each as often as it is decoded: a twin is the same file."""
    return config.anchor_roles * (2 if config.is_gated else 1) if config.depth else ()


def _reading(config: Config, work: Workload) -> Iterator[Batches]:
    length = work.prompt_tokens + TEMPLATE_TOKENS
    for role in ("draft", *(config.anchor_roles if config.depth else ())):
        yield _read(role, "prompt", config.parallel, length)
    for role in config.anchor_roles if config.is_gated else ():
        yield _read(role, "prompt", config.parallel, _HEADER_TOKENS)


def _read(role: str, phase: str, times: float, rows: float, cells: float = 0) -> Batches:
    """A text, in batches as large as a context decodes at once."""
    parts = -(-rows // BATCH_TOKENS)
    return Batches(role, phase, times * parts, rows / parts, 1, cells + rows / 2)


def _writing(config: Config, work: Workload) -> Iterator[Batches]:
    start, length = _mixed(config, work), work.prompt_tokens + TEMPLATE_TOKENS
    rows = config.parallel * config.beams
    # The first token comes from the prompt's own row.
    yield Batches("draft", "mixing", max(start - 1, 0), rows, rows, config.parallel * length)
    if start:
        read = _ANCHOR_ROWS * rows
        for role in _anchors(config):
            yield Batches(role, "mixing", max(start - 1, 0), read, rows, config.parallel * length)
    first = _first_verdict(config, work)
    for steps, num in ((first - start, rows), (work.new_tokens - first, config.parallel)):
        cells = config.parallel * length + num * work.new_tokens / 2
        yield Batches("draft", "completing", max(steps, 0), num, num, cells)


def _first_verdict(config: Config, work: Workload) -> int:
    """How long all beams go on."""
    at = config.first_verdict_at if config.judged else None
    return max(min(at or work.new_tokens, work.new_tokens), _mixed(config, work))


def _read_by_head(config: Config, work: Workload) -> Iterator[Batches]:
    """The end of a turn behind each beam, in one batch of the draft; the winner's again where it went on."""
    length, first = work.prompt_tokens + TEMPLATE_TOKENS, _first_verdict(config, work)
    ends = [(first, config.beams), *([(work.new_tokens, 1)] if first < work.new_tokens else [])]
    for written, beams in ends:
        rows = config.parallel * beams * _END_ROWS
        yield Batches("draft", "judging", 1, rows, 0, config.parallel * (length + beams * written))


def _judging(config: Config, work: Workload) -> Iterator[Batches]:
    """All answers of a prompt in one batch, the request in another; the winner again as it goes on."""
    length, first = work.prompt_tokens, _first_verdict(config, work)
    answers = config.beams * (first + _QUESTION_ROWS)
    yield _read("judge", "judging", config.parallel, answers, _EXAMPLE_CELLS)
    yield _read("judge", "judging", config.parallel, length + _REQUEST_ROWS, _EXAMPLE_CELLS / 2)
    if more := work.new_tokens - first:
        times = -(-more // (config.verdict_every or more))
        rows = more / times + _QUESTION_ROWS
        yield _read("judge", "judging", config.parallel * times, rows, _EXAMPLE_CELLS)
