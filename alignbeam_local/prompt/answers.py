"""An answer as the model itself would write it, and what stands before every answer."""

from ..lm.vocabulary import Vocabulary
from .encoding import encode, encode_plain, runs
from .formats import BaseFormat, ChatFormat, PromptFormat
from .message import Message
from .placeholders import Part, filled
from .rendering import rendered


def answer_ids(text: str, layout: PromptFormat, vocabulary: Vocabulary) -> list[int]:
    """The ids of an answer behind its prompt, with the token that ends the turn; its text stays text."""
    space = " " if layout.strips_leading_space else ""
    end = vocabulary.turn_end(layout.uses_template)
    return [*encode_plain(space + text, vocabulary), *([] if end is None else [end])]


def answer_start(layout: PromptFormat, vocabulary: Vocabulary) -> list[int]:
    """The ids that stand between a question and its answer, BOS before them where the model wants one.

    Of a template that writes nothing of its own there, what it writes behind the question.
    """
    if not isinstance(layout, ChatFormat):
        assert isinstance(layout, BaseFormat)
        return encode(["A:"], vocabulary)
    return encode(runs([Part(_header(layout), False)], layout.special, vocabulary), vocabulary)


def _header(layout: ChatFormat) -> str:
    question = [Message("user", "")]
    whole = rendered(layout.template, question)
    turn = rendered(layout.template, question, add_generation_prompt=False)
    if whole.startswith(turn) and whole != turn:
        return whole.removeprefix(turn)
    return filled(whole, [""])[-1].text
