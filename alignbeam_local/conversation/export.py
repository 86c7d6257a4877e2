"""Kept conversations for other programs and for people: Markdown, JSON, JSON Lines."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

from ..result_json import json_line
from .log import ConversationLog
from .stored import StoredConversation, StoredExchange

ExportFormat = Literal["md", "json", "jsonl"]
#: The format of a file, by its ending.
EXPORT_ENDINGS: Mapping[str, ExportFormat] = {f".{form}": form for form in get_args(ExportFormat)}


class Exported(NamedTuple):
    """A conversation, whole."""

    conversation: StoredConversation
    exchanges: list[StoredExchange]


def read(log: ConversationLog, conversations: Iterable[StoredConversation]) -> Iterator[Exported]:
    """Conversations with their exchanges, one after the other."""
    for conversation in conversations:
        yield Exported(conversation, log.exchanges(conversation.id))


def exported(conversations: Iterable[Exported], form: ExportFormat) -> Iterator[str]:
    """Texts to write one below the other: a document a conversation, one array, or a line an exchange.

    Such a line has the fields that `filter --jsonl` writes.
    """
    match form:
        case "md":
            yield from map(markdown, conversations)
        case "json":
            yield json_line([as_object(one) for one in conversations])
        case "jsonl":
            for one in conversations:
                yield from map(json_line, _rows(one))


def as_object(one: Exported) -> dict[str, Any]:
    """A conversation as one JSON object."""
    exchanges = [
        {**_fields(exchange), "earlier": list(map(_fields, exchange.earlier))} for exchange in one.exchanges
    ]
    return {**one.conversation._asdict(), "exchanges": exchanges}


def _fields(exchange: StoredExchange) -> dict[str, Any]:
    return {"asked": exchange.asked, "question": exchange.question, "result": exchange.result}


def markdown(one: Exported) -> str:
    """A conversation as a Markdown document; the texts stand in it as they are."""
    conversation = one.conversation
    about = f"id {conversation.id}, started {conversation.started}, draft {conversation.draft or 'none'}"
    parts = [f"# {conversation.name or conversation.id}", about]
    system = None
    for exchange in one.exchanges:
        if exchange.result["config"]["system"] != system:
            system = exchange.result["config"]["system"]
            parts += ["## System", system or "none"]
        for old in exchange.earlier:
            parts += ["## You (answered anew below)", old.question, _answer_heading(old), old.answer]
        parts += ["## You", exchange.question, _answer_heading(exchange), exchange.answer]
    return "\n\n".join(parts)


def _answer_heading(exchange: StoredExchange) -> str:
    reason = exchange.result["finish_reason"]
    note = "cut at max_tokens" if reason == "length" else reason
    return "## Assistant" if reason == "stop" else f"## Assistant ({note})"


def _rows(one: Exported) -> Iterator[dict[str, Any]]:
    for exchange in one.exchanges:
        yield {
            "conversation": exchange.conversation,
            "name": one.conversation.name,
            "asked": exchange.asked,
            "prompt": exchange.question,
            **exchange.result,
        }
