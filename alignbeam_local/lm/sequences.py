"""Which sequence of a context holds what, and how many tokens one batch takes."""

from collections.abc import Iterator, Sequence

#: Tokens of one batch of the backend.
BATCH_TOKENS = 512

# --- draft and anchor

#: The prompt, kept between answers.
PROMPT = 0
#: What was read ahead of the next prompt, between answers; while one is made, its first beam.
AHEAD = 1
#: The reasoning of a draft that thinks before its beams start.
REASONING = 1

# --- the judge

#: What every prompt about an answer begins with.
ANSWER_PREFIX = 0
#: What every prompt about a request begins with, while one is asked about.
REQUEST_PREFIX = 1
#: What the answers to one request share.
REQUEST = 2
#: The first answer; the others follow, and a spare one for a long answer's windows.
FIRST_ANSWER = 3


def beam_sequence(index: int) -> int:
    """The sequence of beam `index`: the prompt, then the beam's tokens."""
    return 1 + index


def answer_sequences(beams: int) -> int:
    """How many an answer of so many beams needs in the draft, and in the anchor."""
    return beam_sequence(beams)


def judge_sequences(beams: int) -> int:
    """How many the verdicts on so many beams need."""
    return FIRST_ANSWER + beams + 1


def batches(prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[Sequence[int]]]:
    """Prompts in their order, at most so many together, and only what fits one batch of the backend."""
    batch: list[Sequence[int]] = []
    for ids in prompts:
        if batch and (len(batch) == most or sum(map(len, batch)) + len(ids) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch
