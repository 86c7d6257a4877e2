"""How well head and judge tell harmful requests from benign ones, in kept runs of `alignbeam eval run`.

    python docs/measure_readers.py RUN...

Of each run and suite, from the samples of its first method `alignbeam`, whatever its knobs: the AUC of the
head's reading, of the judge's question about the request, and of the mean of their log-odds, and how much
more that is than the head, if it has prompts of both kinds. 95 % intervals of 2,000 bootstrap samples of the
prompts.
Then, where it left clear requests to the draft alone, how many of these answers the judge calls harmful, by
`score_by`: in runs with `--read-clear always`.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from alignbeam_local.evaluation.runs.run_directory import RunDirectory
from alignbeam_local.evaluation.runs.scored_anew import scored_anew
from alignbeam_local.judge.calibration import auc
from alignbeam_local.knobs.steering import RequestBy
from alignbeam_local.search.steering import log_odds

Floats = npt.NDArray[np.float64]
SAMPLES = 2000


class Readings(NamedTuple):
    """Log-odds of harm, and which requests are harmful, shape (prompts,) each."""

    head: Floats
    judge: Floats
    is_harmful: npt.NDArray[np.bool_]

    def at(self, places: npt.NDArray[np.int64]) -> "Readings":
        return Readings(self.head[places], self.judge[places], self.is_harmful[places])


def readings(samples: list[dict[str, Any]]) -> Readings:
    """Those of the samples whose request both have read."""
    rows = []
    for sample in samples:
        p = sample["result"]["steering"]["p"]
        judged = [beam["judge"]["request"] for beam in sample["result"]["beams"] if beam["judge"]]
        if p is not None and judged and None not in judged:
            rows.append((log_odds(p), log_odds(max(judged)), sample["label"] == "harmful"))
    if not rows:
        raise SystemExit("no request was read by both: the run's judge is not asked about requests")
    return Readings(*(np.array(column) for column in zip(*rows, strict=True)))


def area(scores: Floats, is_harmful: npt.NDArray[np.bool_]) -> float:
    return auc(list(scores[is_harmful]), list(scores[~is_harmful]))


FIGURES: dict[str, Callable[[Readings], float]] = {
    "head": lambda read: area(read.head, read.is_harmful),
    "judge": lambda read: area(read.judge, read.is_harmful),
    "both": lambda read: area(read.head + read.judge, read.is_harmful),
    "both, more than the head": lambda read: FIGURES["both"](read) - FIGURES["head"](read),
}


def draft_alone(result: dict[str, Any]) -> dict[str, Any] | None:
    """A result with the verdict on the draft's own answer to a clear request, also if it was made again."""
    steering = result["steering"]
    if steering["unsteered"]:
        return {**result, "beams": [{"judge": steering["unsteered"]}]}
    if steering["p"] is None or steering["alpha"] is not None:
        return None
    verdict = result["beams"][0]["judge"]
    return result if verdict and not verdict.get("unread") else None


def called_harmful(samples: list[dict[str, Any]], by: RequestBy) -> int:
    """Of samples of clear requests, how many of the draft's own answers are not safe."""
    found = [scored_anew(own, by) for s in samples if (own := draft_alone(s["result"]))]
    scores = [(one["beams"][0]["judge"]["score"], one["config"]["threshold"]) for one in found]
    return sum(score is None or score > threshold for score, threshold in scores)


def figure(read: Readings, value: Callable[[Readings], float]) -> str:
    """The value with its interval."""
    rng, n = np.random.default_rng(0), len(read.is_harmful)
    places = [rng.integers(0, n, n) for _ in range(SAMPLES)]
    low, high = np.nanquantile([value(read.at(drawn)) for drawn in places], [0.025, 0.975])
    return f"{value(read):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    for run in parser.parse_args().runs:
        suites = defaultdict(list)
        kept = [s for s in RunDirectory(run).samples() if s["method"].partition(":")[0] == "alignbeam"]
        for sample in kept:
            if sample["method"] == kept[0]["method"] and sample.get("result", {}).get("steering"):
                suites[sample["suite"]].append(sample)
        for suite, samples in suites.items():
            read = readings(samples)
            print(f"{run.name} {suite}: {read.is_harmful.sum()} harmful, {(~read.is_harmful).sum()} benign")
            for name, value in FIGURES.items() if 0 < read.is_harmful.sum() < len(samples) else ():
                print(f"  {name}: {figure(read, value)}")
            for label in ("harmful", "benign"):
                clear = [s for s in samples if s["label"] == label and draft_alone(s["result"])]
                called = ", ".join(f"{called_harmful(clear, by)} by {by}" for by in get_args(RequestBy))
                print(f"  {len(clear)} answers of the draft alone, {label} requests: harmful {called}")


if __name__ == "__main__":
    main()
