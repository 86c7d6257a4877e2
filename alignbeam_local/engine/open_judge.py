"""A judge from an opened model: its way of asking as models.toml says, its record if one fits."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..cancellation import Cancellation
from ..config import Config
from ..events import Event
from ..judge.calibration import find_calibration
from ..judge.classifier_check import require_telling
from ..judge.formats import ClassifierFormat, JudgeFormat, QuestionsFormat, RubricFormat
from ..judge.judge import Judge
from ..llama.library import default_threads
from ..lm.prefix_store import PrefixStore
from ..machine.context_size import judge_context_size
from ..machine.probe import machine_key
from ..models.entry import CLASSIFIERS, JudgeEntry
from ..models.registry import Registry
from ..result import ModelCard
from .examples import ExampleReading
from .loader import Loader, require_silent_chat
from .open_models import Model


def make_judge(
    model: Model, judge_format: JudgeEntry, *, calibrated: bool = True, store: PrefixStore | None = None
) -> Judge:
    """The judge on this model, with its record if it was measured with this very file and prompt.

    `calibrated` can be false: no record is looked for. Without a `store` it reads its examples itself.

    Raises:
        ModelError: its record is damaged, the model's template refuses the judge's conversation, or a
            classifier does not say its labels.
        Cancelled: the user stopped it while a classifier was asked.
    """
    reader = _reader(judge_format)
    judge = Judge(model.lm, model.format, reader, context=model.trained_context, store=store)
    if judge_format.format in CLASSIFIERS:
        require_telling(judge, model.card.name)
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


def keep_examples(config: Config, registry: Registry, cancellation: Cancellation) -> Iterator[Event]:
    """Let the judge read its worked examples before anything is asked, for later processes; none if kept.

    Raises:
        Cancelled: the user stopped it; nothing is kept.
        UsageError, ModelError: as `open_judge`.
    """
    loader = Loader(config, registry, cancellation)
    try:
        judge, _ = judge_on(loader, config, calibrated=False, store=prefix_store(config))
        if not judge.restore_prefixes():
            yield from ExampleReading(cancellation).rest(judge)
    finally:
        loader.close()


def prefix_store(config: Config) -> PrefixStore | None:
    """Where prefixes are kept, if they are; they are no others' than these threads'. Over RPC none are."""
    if config.prompt_cache == "none" or config.rpc:
        return None
    return PrefixStore(f"{machine_key()}|{config.threads or default_threads()}")


def judge_on(
    loader: Loader, config: Config, *, calibrated: bool = True, store: PrefixStore | None = None
) -> tuple[Judge, ModelCard]:
    """A judge by itself, on a loader that somebody else closes; for the rest see `make_judge`.

    Raises:
        UsageError, ModelError: as `open_judge`.
    """
    file, size = loader.find("judge"), judge_context_size(config)
    loader.place({"judge": (file.path, size)})
    list(loader.prepare(file.path))
    model = loader.open("judge", file, size)
    require_silent_chat("judge", model.card.name, model.format)
    return make_judge(model, file.entry.judge, calibrated=calibrated, store=store), model.card


def _reader(judge_format: JudgeEntry) -> JudgeFormat:
    if judge_format.format == "questions":
        return QuestionsFormat()
    if judge_format.format == "rubric":
        return RubricFormat()
    return ClassifierFormat(judge_format.format, judge_format.prefix, judge_format.labels)
