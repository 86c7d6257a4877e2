"""What a server is asked in a run, and its answers as samples."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...config import Config
from ...errors import AlignBeamError, ContextFull, UsageError
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
from ...result_json import error_object
from ..runs.run_directory import DAMAGE, Json
from .server_client import ServerClient

#: Knobs that OpenAI's API has names of its own for, or that stand beside them.
_TOP_LEVEL = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens")
_PROBE = "Why is the sky blue?"


class ServerPayload(NamedTuple):
    """A prompt, its seed, and the knobs that the run sets; `marks` holds what answers have come from so far.

    Attributes:
        model: which of the server's models answers.
        parallel: how many prompts each server is asked at once.
    """

    model: str
    prompt: str
    seed: int
    knobs: Mapping[str, Any]
    parallel: int


def request(asked: ServerPayload) -> Json:
    """The body of a chat request."""
    top = {name: value for name, value in asked.knobs.items() if name in _TOP_LEVEL}
    own = {name: value for name, value in asked.knobs.items() if name not in _TOP_LEVEL}
    return {
        "model": asked.model,
        "messages": [{"role": "user", "content": asked.prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": asked.seed,
        **top,
        "alignbeam": {"fresh": True, "include": ["beams.text"], **own},
    }


def probe(model: str) -> Json:
    """A request by whose answer servers are compared: a single token is enough."""
    return request(ServerPayload(model, _PROBE, Config.of({}).seed, {"max_tokens": 1}, 1))


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
    """What becomes of a prompt, as `runner.outcomes` says it, and the mark of what answered.

    Raises:
        Unreachable: another server has to be asked.
        AlignBeamError: it can't be asked.
    """
    try:
        answer = client.ask(request(asked))
    except ContextFull as error:
        return [{"error": error_object(error)}]
    try:
        return [{"result": _result(asked, answer).as_dict(), "fingerprint": answer["system_fingerprint"]}]
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
