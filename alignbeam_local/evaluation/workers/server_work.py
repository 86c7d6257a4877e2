"""What a server is asked in a run, and its answers as samples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...config import Config
from ...errors import AlignBeamError, ContextFull, UsageError
from ...prompt.message import Message
from ...result import (
    AdapterCard,
    BeamResult,
    BridgeResult,
    FinishReason,
    ModelCard,
    Refusal,
    Result,
    Timings,
    Usage,
    Verdict,
)
from ..methods.method import Asked
from ..methods.prompt import turns_of
from ..runs.run_directory import DAMAGE, Json
from ..runs.talks import Turns, talk
from ..suites.suites import Item
from .server_client import ServerClient

#: Knobs that OpenAI's API has names of its own for, or that stand beside them.
_TOP_LEVEL = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens")
_PROBE = "Why is the sky blue?"


class ServerPayload(NamedTuple):
    """A prompt with the turns before it, its seed, and the knobs that the run sets.

    Attributes:
        model: which of the server's models answers.
        parallel: how many prompts each server is asked at once.
        turns: whose answers stand before the last question.
    """

    model: str
    item: Item
    seed: int
    knobs: Mapping[str, Any]
    parallel: int
    turns: Turns


def request(model: str, turns: Sequence[Message], seed: int, knobs: Mapping[str, Any]) -> Json:
    """The body of a chat request."""
    top = {name: value for name, value in knobs.items() if name in _TOP_LEVEL}
    own = {name: value for name, value in knobs.items() if name not in _TOP_LEVEL}
    return {
        "model": model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": seed,
        **top,
        "alignbeam": {"fresh": True, "include": ["beams.text"], **own},
    }


def probe(model: str) -> Json:
    """A request by whose answer servers are compared: a single token is enough."""
    return request(model, turns_of(_PROBE), Config.of({}).seed, {"max_tokens": 1})


def about_server(client: ServerClient, probing: Json) -> Json:
    """Its version, the model that answers, and what stands for all its knobs and files.

    Raises:
        Unreachable: it does not answer.
        UsageError: it has no such model, or is another program.
    """
    version, models = client.version(), client.models()
    model = next((each for each in models if each.get("id") == probing["model"]), None)
    if model is None:
        raise UsageError(
            f"{client.url} has no model '{probing['model']}'",
            f"It has {', '.join(str(each.get('id')) for each in models)}; --profile names one of them.",
        )
    answer = client.ask(probing)
    try:
        files = answer["alignbeam"]["models"]
        return {
            "version": version,
            "model": model["id"],
            "fingerprint": answer["system_fingerprint"],
            "models": {role: dict(files[role]) for role in sorted(files)},
        }
    except DAMAGE:
        raise UsageError(
            f"{client.url} does not say which files answer", "Run the same version of this program there."
        ) from None


def made(client: ServerClient, asked: ServerPayload) -> list[Json]:
    """What becomes of a prompt, as `runner.outcomes` says it, and the marks of what answered its turns.

    Raises:
        Unreachable: another server has to be asked.
        AlignBeamError: it can't be asked.
    """
    marks: list[str] = []

    def answers(questions: Sequence[Asked]) -> list[Result | AlignBeamError]:
        return [_answered(client, asked, turns_of(prompt), marks) for prompt, _ in questions]

    (last,) = talk(answers, [(asked.item, Config.of({}))], own=asked.turns == "own")
    return [{**last.sampled(), "fingerprints": marks}]


def _answered(
    client: ServerClient, asked: ServerPayload, turns: Sequence[Message], marks: list[str]
) -> Result | AlignBeamError:
    try:
        answer = client.ask(request(asked.model, turns, asked.seed, asked.knobs))
    except ContextFull as error:
        return error
    try:
        marks.append(answer["system_fingerprint"])
        return _result(asked, answer)
    except DAMAGE as error:
        raise AlignBeamError(
            f"{client.url} gave an answer in another form: {error!r}",
            "Run the same version of this program there.",
        ) from None


def _result(asked: ServerPayload, answer: Json) -> Result:
    """As far as a server tells it: no reasoning, no raw scores, no build of llama.cpp."""
    own = answer["alignbeam"]
    beams = tuple(map(_beam, own["beams"]))
    outcome = own["outcome"]
    finish: FinishReason = outcome if outcome in ("blocked", "withdrawn") else answer["finish"]
    usage = answer["usage"]
    return Result(
        text=answer["text"],
        reasoning=None,
        finish_reason=finish,
        chosen=next((beam["index"] for beam in own["beams"] if beam["chosen"]), None),
        refusal=Refusal(outcome != "answered", own["by"]),
        beams=beams,
        bridge=BridgeResult(covered_mass=own["covered_mass"]),
        usage=Usage(usage["prompt_tokens"], usage["completion_tokens"]),
        timings=Timings(**own["timings"]),
        config={**asked.knobs, "seed": asked.seed, "parallel": max(asked.parallel, 1 + own["batched_with"])},
        models={role: _card(one) for role, one in own["models"].items()},
        version="",
        llama_cpp="",
        notices=tuple(own["notices"]),
    )


def _card(one: Json) -> ModelCard:
    adapters = tuple(AdapterCard(path="", **adapter) for adapter in one["adapters"])
    return ModelCard(one["name"], "", one["sha256"], "", adapters)


def _beam(beam: Json) -> BeamResult:
    verdict = beam["verdict"]
    judge = Verdict(beam["harm"], None, {}, verdict, unread=beam["unread"]) if verdict else None
    names = ("index", "tokens", "finish_reason", "logprob", "degenerate")
    return BeamResult(**{name: beam[name] for name in names}, text=beam["text"] or "", mixed=0, judge=judge)
