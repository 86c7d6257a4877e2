"""What `alignbeam heads --answers` does: the head on a draft's answers, fitted, measured and shown."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError
from alignbeam_local.models.registry import Registry

from ..console.terminal import for_stream, say
from ..console.waiting import tracked
from ..inputs import unseen
from .injecting import with_injections

if TYPE_CHECKING:
    from alignbeam_local.heads.answer_head import AnswerReader
    from alignbeam_local.heads.features import RequestReader, States
    from alignbeam_local.judge.check import JudgeReport, Pair
    from alignbeam_local.judge.injections import InjectionReport


def fit_answers(pairs: Path | None, out: Path | None, config: Config, *, as_json: bool) -> None:
    """Fit a draft's head, keep it and show it. Raises: UsageError, ModelError: as `fit_answer_head`."""
    from alignbeam_local.engine.open_reader import open_reader
    from alignbeam_local.heads.answer_head import ANSWER_HEADS
    from alignbeam_local.heads.fit_answers import fit_answer_head
    from alignbeam_local.judge.check import PAIRS_FILE, read_pairs, require_splits

    from ..views.heads import print_answer_heads

    wanted = read_pairs(pairs or PAIRS_FILE)
    require_splits(wanted)
    with open_reader(config, Registry.load(), "draft") as (reader, card):
        states, key = _read_pairs(reader, wanted), reader.key
    record = fit_answer_head(wanted, states, card, key, config.threshold)
    path = out or ANSWER_HEADS.file(card.weights_sha256, key)
    ANSWER_HEADS.save(record, path)
    print_answer_heads([record], as_json=as_json)
    say(f"written: {path}")


def check_answers(model: str, pairs: Path | None, config: Config, *, injections: bool, as_json: bool) -> None:
    """Show how a draft's head does on labelled pairs, or against injections.

    Raises:
        ModelError: there is none, or it can't be read.
    """
    from alignbeam_local.engine.open_reader import open_reader
    from alignbeam_local.heads.answer_head import ANSWER_HEADS, AnswerReader
    from alignbeam_local.judge.check import PAIRS_FILE, held_out, read_pairs

    from ..views.judge import print_report

    wanted = unseen(read_pairs(pairs), "pairs") if pairs else held_out(read_pairs(PAIRS_FILE))
    with open_reader(config, Registry.load(), "draft") as (reader, card):
        head = ANSWER_HEADS.find(card.weights_sha256, reader.key)
        if head is None:
            raise ModelError(
                f"there is no answer head for {card.name} with this template",
                f"alignbeam heads fit {model} --answers",
            )
        check = _injected if injections else _labelled
        found = check(AnswerReader(head, reader), wanted, config, card.name)
    if as_json:
        print(for_stream(found.model_dump_json(), sys.stdout))
    else:
        print_report(found)


def _labelled(judge: "AnswerReader", pairs: "Sequence[Pair]", config: Config, name: str) -> "JudgeReport":
    from alignbeam_local.heads.fit_answers import read_by
    from alignbeam_local.judge.check import report

    measured = read_by(judge.head, pairs, _read_pairs(judge.reader, pairs))
    return report(measured, None, name, config.threshold)


def _injected(judge: "AnswerReader", pairs: "Sequence[Pair]", config: Config, name: str) -> "InjectionReport":
    from alignbeam_local.judge.injections import report

    before, after = with_injections(judge.judge, pairs, config)
    return report(before, after, name, config.threshold, is_calibrated=True)


def show_answers(model: str | None, *, as_json: bool) -> None:
    """Show the heads that are kept here, or one model's. Raises: ModelError: there is none."""
    from alignbeam_local.heads.answer_head import ANSWER_HEADS

    from ..views.heads import print_answer_heads

    found = [head for _, head in ANSWER_HEADS.all() if model in (None, head.model)]
    if not found:
        raise ModelError(
            f"there is no answer head{f' for {model}' if model else ''}",
            f"alignbeam heads fit {model or 'MODEL'} --answers",
        )
    print_answer_heads(found, as_json=as_json)


def _read_pairs(reader: "RequestReader", pairs: "Sequence[Pair]") -> "States":
    import numpy as np

    return np.concatenate(
        [reader.read_answers([(pair.question, pair.answer)]) for pair in tracked(pairs, "reading")]
    )
