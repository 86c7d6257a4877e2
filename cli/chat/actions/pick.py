"""`/pick`: another beam as the answer."""

from alignbeam_local.errors import UsageError
from alignbeam_local.events import AnswerText, Done

from ..chat import Chat
from .numbers import number_in


def pick(chat: Chat, word: str) -> None:
    """Take another safe beam as the last answer, in the conversation and in the log.

    Raises:
        UsageError: no such beam, or none that may be an answer; there is no answer of this run.
        AlignBeamError: it could not be stored.
    """
    number = number_in(word)
    if number is None:
        raise UsageError("/pick needs the number of a beam", "Such as /pick 2; /why all shows them.")
    exchange = chat.conversation.pick(number - 1, chat.steps)
    chat.play(iter((AnswerText(exchange.result.text), Done(exchange.result))))
    chat.conversation.read_ahead(chat.settings.config)
    chat.transcript.replace_last(exchange.question, exchange.result)
