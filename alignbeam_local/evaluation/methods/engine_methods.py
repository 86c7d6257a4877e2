"""Methods that the engine answers by knobs alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from ...config import Config
from ...engine.engine import Engine
from ...errors import AlignBeamError
from ...result import Result
from .method import Answerer, Asked, Method
from .model_pool import ModelPool
from .names import ALIGNBEAM, BEST_OF_K
from .prompt import turns_of


class EngineMethod(Method):
    """Answers with the engine's pipeline."""

    steers_rows: ClassVar[bool] = True

    def open(self, config: Config, pool: ModelPool) -> Answerer:
        return partial(ask if config.parallel == 1 else ask_together, pool.engine(config))


def ask(engine: Engine, asked: Sequence[Asked]) -> Sequence[Result | AlignBeamError]:
    """The answer to one prompt, which depends on nothing the engine was asked before."""
    ((prompt, config),) = asked
    engine.forget()
    try:
        return [engine.answer(turns_of(prompt), config)]
    except AlignBeamError as error:
        return [error]


def ask_together(engine: Engine, asked: Sequence[Asked]) -> Sequence[Result | AlignBeamError]:
    """Answers to some prompts, all with the same room, that share batches."""
    for _ in engine.load(asked[0][1]):
        pass
    engine.forget()
    return engine.parallel().answers([(turns_of(prompt), config) for prompt, config in asked])


def alone(base: Config, **changed: Any) -> Config:
    """The draft by itself: one beam, not mixed, not judged."""
    return base.with_values(
        {"depth": 0, "beams": 1, "steer": "always", "on_unsafe": "auto"}
        | {"judge_at": None, "judge_every": None, "late": "off"}
        | changed
    )


class AlignBeam(EngineMethod):
    """The whole pipeline with all its knobs (AlignBeam, arXiv 2606.12342, section 3, Eq. 1)."""

    name: ClassVar[str] = ALIGNBEAM

    def config(self, base: Config) -> Config:
        """Samples hold what their requests were read as, unless that is turned off: `reselect` goes by it."""
        return base.with_values({"read_request": "on"}) if base.read_request == "auto" else base

    def models(self, config: Config) -> dict[str, str | None]:
        return {role: config.named(role) for role in config.roles}


class BestOfK(AlignBeam):
    """K beams from the draft's own K likeliest first tokens, and the judge's choice: no mixing.

    AlignBeam (arXiv 2606.12342), section 3, with N = 0.
    """

    name: ClassVar[str] = BEST_OF_K

    def config(self, base: Config) -> Config:
        return base.with_values({"depth": 0})


class Draft(EngineMethod):
    """The specialist by itself (AlignBeam, arXiv 2606.12342, Table 3)."""

    name: ClassVar[str] = "draft"
    roles: ClassVar[tuple[str, ...]] = ("draft",)

    def config(self, base: Config) -> Config:
        return alone(base)


class Anchor(EngineMethod):
    """The anchor by itself, with the system prompt that an anchor gets (arXiv 2606.12342, Table 3)."""

    name: ClassVar[str] = "anchor"
    roles: ClassVar[tuple[str, ...]] = ("draft",)
    reads: ClassVar[tuple[str, ...]] = ("anchor", "anchor_system")
    steers_rows: ClassVar[bool] = False

    def config(self, base: Config) -> Config:
        own = {"none": None, "same": base.system}.get(base.anchor_system, base.anchor_system)
        return alone(base, draft=base.named("anchor"), system=own, lora=())


class SafetyTokens(EngineMethod):
    """The draft by itself, its safety tokens boosted, or ablated where the knob says so.

    PACT (arXiv 2603.07445), Table 1: 5.0 on their logits at every step. `safety_file` names the tokens,
    `safety_steps` how many steps.
    """

    name: ClassVar[str] = "safety-tokens"
    roles: ClassVar[tuple[str, ...]] = ("draft",)

    def config(self, base: Config) -> Config:
        return alone(base, safety_tokens="boost" if base.safety_tokens == "none" else base.safety_tokens)


class SystemPrompt(EngineMethod):
    """The draft alone, told to be safe, before what the user's system prompt says.

    A baseline of AlignBeam (arXiv 2606.12342, section 5); the text is Llama 2's (Touvron et al. 2023,
    arXiv 2307.09288), without its second paragraph.
    """

    name: ClassVar[str] = "system-prompt"
    roles: ClassVar[tuple[str, ...]] = ("draft",)

    text: str = (
        "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
        "being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, "
        "dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive "
        "in nature."
    )

    def config(self, base: Config) -> Config:
        return alone(base, system="\n\n".join(filter(None, (self.text, base.system))))
