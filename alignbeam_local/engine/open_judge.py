"""A judge from an opened model: its way of asking as models.toml says, its record if one fits."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..cancellation import Cancellation
from ..config import Config
from ..events import ModelCard
from ..judge.calibration import find_calibration
from ..judge.formats import ClassifierReader, QuestionsReader, Reader, RubricReader
from ..judge.judge import Judge
from ..lm.prefix_store import PrefixStore
from ..models.entry import JudgeFormat
from ..models.registry import Registry
from .loader import Loader, require_silent_chat
from .open_models import Model, judge_room


def make_judge(
    model: Model, judge_format: JudgeFormat, *, calibrated: bool = True, store: PrefixStore | None = None
) -> Judge:
    """The judge on this model, with its record if it was measured with this very file and prompt.

    `calibrated` can be false: no record is looked for. Without a `store` it reads its examples itself.

    Raises:
        ModelError: its record is damaged, or the model's template refuses the judge's conversation.
    """
    reader = _reader(judge_format)
    judge = Judge(model.lm, model.format, reader, context=model.trained_context, store=store)
    if calibrated:
        judge.record = find_calibration(model.card.name, model.card.sha256, judge.key)
    return judge


@contextmanager
def open_judge(
    config: Config, registry: Registry, *, calibrated: bool = True
) -> Iterator[tuple[Judge, ModelCard]]:
    """The judge that a configuration names, alone, closed at the end.

    Args:
        calibrated: as for `make_judge`.

    Raises:
        UsageError, ModelError: it is not named, not there, damaged, or can't judge.
    """
    loader = Loader(config, registry, Cancellation())
    try:
        yield judge_on(loader, config, calibrated=calibrated)
    finally:
        loader.close()


def judge_on(loader: Loader, config: Config, *, calibrated: bool = True) -> tuple[Judge, ModelCard]:
    """The same on a loader that somebody else closes. Raises: as `open_judge`."""
    file, room = loader.find("judge"), judge_room(config)
    loader.place({"judge": (file.path, room)})
    list(loader.prepare(file.path))
    model = loader.open("judge", file, room)
    require_silent_chat("judge", model.card.name, model.format)
    return make_judge(model, file.entry.judge, calibrated=calibrated), model.card


def _reader(judge_format: JudgeFormat) -> Reader:
    if judge_format.format == "questions":
        return QuestionsReader()
    if judge_format.format == "rubric":
        return RubricReader()
    return ClassifierReader(judge_format.format, judge_format.prefix, judge_format.labels)
