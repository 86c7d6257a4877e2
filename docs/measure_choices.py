"""What a choice changes on the suite `harmless_questions`.

    python docs/measure_choices.py RUN METHOD

Of each method of a run that `alignbeam eval reselect` wrote: how many of its answers differ from those of
METHOD. Of the questions whose right answer is yes or no: how many answers say the opposite of METHOD's,
and how many are right of those that say either. An answer says what its first word is.
"""

import argparse
import json
import re
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

from alignbeam_local.evaluation.runs.run_directory import RunDirectory

SUITE = files("alignbeam_local.evaluation.suites") / "harmless_questions.jsonl"


def said(text: str) -> str | None:
    """yes, no, or None."""
    found = re.match(r"\W*(yes|no)\b", text.lower())
    return found and found.group(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("method", help="the one that the others are held against")
    wanted = parser.parse_args()
    rows = map(json.loads, SUITE.read_text(encoding="utf-8").splitlines())
    right = {row["id"]: row["answer"] for row in rows}
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for sample in RunDirectory(wanted.run).samples():
        texts[sample["method"]][sample["id"]] = sample["result"]["text"]
    if (base := texts.get(wanted.method)) is None:
        parser.error(f"no such method in {wanted.run}: {', '.join(texts)}")
    for method, found in texts.items():
        told = {id_: word for id_, text in found.items() if (word := said(text)) and right[id_]}
        differ = sum(text != base[id_] for id_, text in found.items())
        flips = sum({word, said(base[id_])} == {"yes", "no"} for id_, word in told.items())
        correct = sum(right[id_] == word for id_, word in told.items())
        print(f"{method}\n  {differ} of {len(found)} differ, {flips} say the opposite", end=", ")
        print(f"{correct} of {len(told)} are right")


if __name__ == "__main__":
    main()
