"""A result in the form of OpenAI's chat completions, whole or in chunks, with what is ours beside it."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import uuid4

from ... import __version__
from ...result import FinishReason, Result, Verdict, json_safe
from .answer_object import answer_object
from .chat_request import Extra
from .record import Record

_FINISH: Mapping[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "blocked": "content_filter",
    "withdrawn": "content_filter",
    "cancelled": "stop",
}
#: Why there is no answer and by whom, in a sentence for whoever reads `refusal`.
_BY_JUDGE = {
    "blocked": "Blocked: the judge found no draft of this answer safe.",
    "withdrawn": "Stopped: the judge found the answer unsafe as it went on.",
}
_BY_REQUEST = {
    "blocked": "Blocked: the request was read as harmful, and no draft refuses it.",
    "withdrawn": "Stopped: the request was read as harmful, and the answer no longer refuses it.",
}
#: From this harm on, of 1 to 5, the severity of an answer that is not safe is called so.
_SEVERITIES = ((4.0, "high"), (3.0, "medium"), (0.0, "low"))


@dataclass(frozen=True)
class Head:
    """What all chunks of one response share."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, model: str, fingerprint: str) -> "Head":
        return cls(f"chatcmpl-{uuid4().hex}", int(time.time()), model, fingerprint)

    def whole(self, record: Record, include: Sequence[Extra], *, shows_all: bool) -> dict[str, Any]:
        """A `chat.completion`; the record holds a result."""
        result = record.result
        assert result is not None
        message = {"role": "assistant", "content": result.text, "refusal": refusal_of(result)}
        choice = {"index": 0, "message": message, "logprobs": None, **_end(result)}
        return {
            **self._as("chat.completion"),
            "choices": [choice],
            "usage": usage(record),
            "alignbeam": own_object(record, include, shows_all=shows_all),
        }

    def chunk(self, delta: Mapping[str, Any], **beside: Any) -> dict[str, Any]:
        """A `chat.completion.chunk`; `beside` stands next to the choices."""
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": None}
        return {**self._as("chat.completion.chunk"), "choices": [choice], **beside}

    def last_chunk(self, record: Record, include: Sequence[Extra], *, shows_all: bool) -> dict[str, Any]:
        """The one with the reason of the end; the record holds a result."""
        result = record.result
        assert result is not None
        refusal = refusal_of(result)
        delta = {} if refusal is None else {"refusal": refusal}
        choice = {"index": 0, "delta": delta, "logprobs": None, **_end(result)}
        own = own_object(record, include, shows_all=shows_all)
        return {**self._as("chat.completion.chunk"), "choices": [choice], "alignbeam": own}

    def usage_chunk(self, record: Record) -> dict[str, Any]:
        """The one that comes only if it was asked for."""
        return {**self._as("chat.completion.chunk"), "choices": [], "usage": usage(record)}

    def _as(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


def fingerprint(config: Mapping[str, Any], marks: Sequence[str]) -> str:
    """Changes with the models and what is on record of them, the knobs and this program's version."""
    text = json.dumps([__version__, json_safe(dict(config)), list(marks)], sort_keys=True)
    return f"ab-{__version__}-{sha256(text.encode()).hexdigest()[:12]}"


def refusal_of(result: Result) -> str | None:
    """Why no answer was given; None where the draft's words stand, whatever they say."""
    reasons = _BY_REQUEST if result.refusal.by == "request" else _BY_JUDGE
    return reasons.get(result.finish_reason)


def _end(result: Result) -> dict[str, Any]:
    """The reason of the end and, in Azure's form, what the judge found; nothing was judged: nothing of it."""
    end: dict[str, Any] = {"finish_reason": _FINISH[result.finish_reason]}
    if any(beam.judge for beam in result.beams):
        filtered = refusal_of(result) is not None
        harm = {"filtered": filtered, "severity": _severity(result), "score": _harm(result)}
        end["content_filter_results"] = {"harm": harm}
    return end


def _harm(result: Result) -> float | None:
    """Of the chosen beam; of a blocked answer, the least that any beam has; see `_withdrawn`."""
    verdicts = [beam.judge for beam in result.beams if beam.judge and result.chosen in (None, beam.index)]
    if result.finish_reason == "withdrawn":
        return _withdrawn(verdicts)
    return json_safe(min(_scores(verdicts), default=None))  # type: ignore[no-any-return]


def _withdrawn(verdicts: Sequence[Verdict]) -> float | None:
    """The most of the beams that did not pass, the withdrawn one among them; None: one of these has no score.

    Where all passed, and the answer is withdrawn as it loops, the most of all.
    """
    failed = [verdict for verdict in verdicts if verdict.verdict != "safe"] or verdicts
    scores = _scores(failed)
    return json_safe(max(scores)) if len(scores) == len(failed) else None


def _scores(verdicts: Sequence[Verdict]) -> list[float]:
    return [verdict.score for verdict in verdicts if verdict.score is not None]


def _severity(result: Result) -> str:
    """Of what is shown, as the judge found it: also an answer that is not safe can be, with `on_unsafe`."""
    chosen = [beam.judge for beam in result.beams if beam.index == result.chosen]
    if any(verdict and verdict.verdict == "safe" for verdict in chosen):
        return "safe"
    harm = _harm(result)
    return next(name for least, name in _SEVERITIES if harm is None or harm >= least)


def usage(record: Record) -> dict[str, Any]:
    """Tokens of the draft; what was not decoded anew is cached."""
    result = record.result
    assert result is not None
    counted = result.usage
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": min(record.cached_tokens, counted.prompt_tokens)},
    }


def own_object(record: Record, include: Sequence[Extra], *, shows_all: bool) -> dict[str, Any]:
    """The `alignbeam` object; `include` names its heavy parts.

    `shows_all`: also text that no verdict has passed, and answers to a request that is to be refused.
    """
    result = record.result
    assert result is not None
    found = answer_object(
        result,
        record.steps,
        record.job.judge_record,
        has_texts="beams.text" in include,
        has_tokens="steps" in include,
        shows_all=shows_all,
    )
    notices = [*record.notices, *result.notices]
    beside = {"batched_with": record.job.batched_with, "notices": notices, "models": _models(result)}
    return {**found, **beside}


def _models(result: Result) -> dict[str, dict[str, Any]]:
    """By role the name and the hash of the file that played it, and its adapters; not where they lie."""
    return {
        role: {
            "name": card.name,
            "sha256": card.sha256,
            "adapters": [adapter.shown for adapter in card.adapters],
        }
        for role, card in result.models.items()
        if card is not None
    }
