"""One timed answer: when its first token came, what each phase took, how much of that is not llama.cpp's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from ..config import Config
from ..conversation.conversation import Conversation
from ..engine.engine import Engine
from ..engine.open_models import OpenModels
from ..engine.prompters import draft_prompter
from ..engine.read_ahead import known_of_next
from ..errors import ModelError
from ..events import BeamText, Done, Event, Phase, Step
from ..llama.plain import PlainDraft
from ..lm.language_model import LanguageModel, SamplerSettings, common_prefix
from ..prompt.message import Message
from ..result import Result


@dataclass(frozen=True)
class TimedAnswer:
    """One answer. Milliseconds; `decodes` and the `decoded` tokens by role, the other two by phase."""

    total_ms: float
    first_token_ms: float
    tokens: int  # of all beams
    decodes: dict[str, int]
    phases: dict[str, float] = field(default_factory=dict)
    python_share: dict[str, float] = field(default_factory=dict)
    decoded: dict[str, int] = field(default_factory=dict)


def timed_answer(engine: Engine, messages: Sequence[Message], config: Config) -> TimedAnswer:
    """Answer a conversation of which the caches hold nothing.

    Raises:
        ContextFull, ModelError: as `Engine.stream`; or the answer is shorter than was asked for.
    """
    engine.forget()
    models = _models(engine.models)
    before = {role: (lm.decodes, lm.decoded_tokens) for role, lm in models.items()}
    clock = _Clock(models)
    result = clock.result(engine.stream(messages, config))
    require_whole(result, config)
    return TimedAnswer(
        total_ms=result.timings.total_ms,
        first_token_ms=clock.first_token_ms,
        tokens=sum(beam.tokens for beam in result.beams),
        decodes={role: lm.decodes - before[role][0] for role, lm in models.items()},
        phases=_phases(result),
        python_share=clock.python_share(result),
        decoded={role: lm.decoded_tokens - before[role][1] for role, lm in models.items()},
    )


def require_whole(result: Result, config: Config) -> None:
    """Raises: ModelError: a beam that nothing stops early is shorter than was asked for."""
    tokens = [beam.tokens for beam in result.beams]
    if (max(tokens) if config.judge_at else min(tokens)) < config.max_tokens:
        raise ModelError("an answer ended before it had all its tokens", "Try another --seed.")


def second_turn(
    engine: Engine, plain: PlainDraft, first: str, second: str, config: Config
) -> tuple[float, float]:
    """Milliseconds to the first token of a second turn: ours, and the draft's alone.

    All that can be known of its prompt before the question was read before, by the plain draft too.
    """
    conversation = Conversation(engine)
    for _ in conversation.ask(first, config):
        pass
    answered = conversation.messages
    conversation.read_ahead(config)
    engine.background.wait()
    start = perf_counter()
    events = conversation.ask(second, config)
    next(event for event in events if isinstance(event, Step | BeamText))
    ours = 1e3 * (perf_counter() - start)
    events.close()
    draft = draft_prompter(engine.models, config)
    ids = draft.encode([*answered, Message("user", second)])
    known = common_prefix(ids, known_of_next(draft, answered))
    plain.read(ids[:known])
    return ours, plain.go_on(ids[known:], SamplerSettings.of(config, config.max_tokens), 1).first_token_ms


class _Clock:
    """Follows one answer's events, and the time that its models compute."""

    def __init__(self, models: Mapping[str, LanguageModel]) -> None:
        self._models = models
        self._start = perf_counter()
        self._at_phase = {"start": self._computed()}  # of each phase that began
        self.first_token_ms = 0.0

    def result(self, events: Iterable[Event]) -> Result:
        for event in events:
            if isinstance(event, Step | BeamText) and not self.first_token_ms:
                self.first_token_ms = 1e3 * (perf_counter() - self._start)
            elif isinstance(event, Phase):
                self._at_phase.setdefault(event.name, self._computed())
            elif isinstance(event, Done):
                self._at_phase["end"] = self._computed()
                return event.result
        raise AssertionError("a stream ends in Done")

    def python_share(self, result: Result) -> dict[str, float]:
        """Of the mixed steps, of completing, of the whole: the part that is not in llama.cpp.

        The judge may come before the last tokens, so of completing only the draft's time is looked at.
        """
        begun, timings = self._at_phase, result.timings
        mixed_from = begun.get("mix", begun["complete"])  # a clear request is not mixed
        mixing = sum(begun["complete"][role] - mixed_from[role] for role in self._models)
        completing = begun["end"]["draft"] - begun["complete"]["draft"]
        whole = sum(begun["end"][role] - begun["start"][role] for role in self._models)
        opened = {
            "mix": (mixing, timings.mix_ms),
            "complete": (completing, timings.complete_ms),
            "whole": (whole, timings.total_ms),
        }
        return {phase: 1 - computed / wall for phase, (computed, wall) in opened.items() if wall}

    def _computed(self) -> dict[str, float]:
        """Milliseconds in llama.cpp so far, by role."""
        return {role: 1e3 * lm.compute_seconds for role, lm in self._models.items()}


def _phases(result: Result) -> dict[str, float]:
    timings = result.timings
    return {
        "draft prefill": timings.draft_prefill_ms,
        "anchor prefill": timings.anchor_prefill_ms,
        "mix": timings.mix_ms,
        "complete": timings.complete_ms,
        "judge": timings.judge_ms,
    }


def _models(opened: OpenModels) -> dict[str, LanguageModel]:
    return {role: model.lm for role, model in opened.by_role.items()}
