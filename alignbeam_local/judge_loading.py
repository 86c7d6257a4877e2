"""A judge from an opened model: its way of asking as models.toml says, its record if one fits."""

from .calibration import find_calibration
from .judge import Judge
from .judge_readers import ClassifierReader, Reader, RubricReader
from .model_entry import JudgeFormat
from .parts import Model


def make_judge(model: Model, judge_format: JudgeFormat) -> Judge:
    """The judge on this model, calibrated if it was measured with this very file and prompt.

    Raises:
        ModelError: a record can't be read, or the model's template refuses the judge's conversation.
    """
    judge = Judge(model.lm, model.format, _reader(judge_format))
    judge.record = find_calibration(model.card.sha256, judge.key)
    return judge


def _reader(judge_format: JudgeFormat) -> Reader:
    if judge_format.format == "rubric":
        return RubricReader()
    return ClassifierReader(judge_format.format, judge_format.prefix, judge_format.labels)
