"""CPU time of what is not llama.cpp in a mixed step and in a phase-3 step: with models that compute nothing.

    python docs/profile_steps.py DRAFT.gguf ANCHOR.gguf [--beams 3] [--obvious] [--profile]

Only the vocabularies of the files are read; the rows of logits are random. `--obvious` puts the simple
versions in the place of those that were made faster, `--profile` prints where the time goes.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alignbeam_local.config import Config
from alignbeam_local.llama.weights import load_vocabulary
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.search import beams, mixer, mixing
from alignbeam_local.search.anchors import BridgedAnchor
from alignbeam_local.search.beams import BeamSearch
from alignbeam_local.search.bridge import Bridge

MIXED, COMPLETED, ROUNDS = 6, 500, 40


class StillModel:
    """A language model and its own sampler: rows are there, no time passes."""

    def __init__(self, vocabulary: Vocabulary, seed: int) -> None:
        self.vocabulary = vocabulary
        random, self._turn = np.random.default_rng(seed), 0
        self._rows = [random.normal(0, 2.5, vocabulary.size).astype(np.float32) for _ in range(4)]
        for row in self._rows:
            row[random.integers(1000, 40_000, 100)] += 12
            row[sorted(vocabulary.end_tokens)] = -30

    def logits(self, sequence: int) -> np.ndarray:
        return self._rows[(self._turn + sequence) % len(self._rows)]

    def extend(self, _: object) -> None:
        self._turn += 1

    set_tokens = extend

    def fork(self, *_: object) -> None:
        pass

    def sampler(self, _: object) -> "StillModel":
        return self

    accept = close = fork

    def sample(self, _: int) -> int:
        self._turn += 1
        return 1000 + self._turn % 30_000


def obvious_top_tokens(logits: np.ndarray, width: int, normaliser: float) -> mixing.TopTokens:
    """By a partial sort of the whole row."""
    width = min(width, len(logits))
    tokens = np.argpartition(logits, len(logits) - width)[len(logits) - width :]
    tokens = tokens[np.lexsort((tokens, -logits[tokens]))].astype(np.int64)
    return mixing.TopTokens(tokens, mixing.probabilities(logits, tokens, normaliser))


def obvious_log_normaliser(logits: np.ndarray) -> float:
    """Of the whole row at once."""
    peak = logits.max()
    return float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))


def cpu_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("draft", type=Path)
    parser.add_argument("anchor", type=Path)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--obvious", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    if args.obvious:
        for module in (mixer, beams):
            module.top_tokens = obvious_top_tokens
        mixer.log_normaliser = obvious_log_normaliser
    draft, anchor = (load_vocabulary(path)[0] for path in (args.draft, args.anchor))
    still, other = StillModel(draft, 1), StillModel(anchor, 2)
    anchors = [BridgedAnchor(other, Bridge(draft, anchor, draft_turn_end=draft.eos))]
    config = Config.of({"beams": args.beams, "depth": MIXED, "ignore_eos": True})
    profiler, mixed, completed = cProfile.Profile(), [], []
    for _ in range(ROUNDS):
        search = BeamSearch(still, anchors, config, max_tokens=MIXED + COMPLETED)
        list(search.start(still.logits(0), [other.logits(0)]))
        if args.profile:
            profiler.enable()
        mixed.append(cpu_ms(lambda: list(search.extend([[1]]))) / (MIXED - 1))  # noqa: B023
        completed.append(cpu_ms(lambda: list(search.complete())) / COMPLETED)  # noqa: B023
        profiler.disable()
    for name, times in (("mixed step", mixed), ("phase-3 step", completed)):
        low, median = np.percentile(times, [10, 50])
        print(f"{name}: {median:.3f} ms, the fastest tenth {low:.3f} ms")
    if args.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    main()
