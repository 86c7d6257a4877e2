"""The loop of methods that choose tokens by the rows of several models with one vocabulary."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ... import __version__
from ...config import Config
from ...engine.open_models import Model
from ...engine.prompters import anchor_turns, prefilled, with_system
from ...engine.stopwatch import Stopwatch
from ...errors import ContextFull, ModelError
from ...llama.library import build
from ...lm.language_model import Logits
from ...prompt.text_stream import TextStream
from ...refusals.detector import declines
from ...result import BeamResult, BridgeResult, Refusal, Result, Usage
from ...search.refusals import is_degenerate
from .prompt import Prompt, turns_of
from .row_sampler import RowSampler

#: From each model's logits (V,) at one position to the row to draw from.
Combine = Callable[[Sequence[Logits]], Logits]


@dataclass
class Decoded:
    """An answer in the making, in the draft's tokens; the end token is not one of them."""

    model: Model
    config: Config
    stream: TextStream = field(init=False)
    tokens: list[int] = field(default_factory=list)
    finish: Literal["stop", "length"] = "length"

    def __post_init__(self) -> None:
        layout = self.model.format
        stops = () if self.config.ignore_eos else layout.stop_strings
        self.stream = TextStream((*stops, *self.config.stop), layout.strips_leading_space)

    def append(self, token: int) -> bool:
        """Take a token; whether the answer goes on."""
        vocabulary = self.model.lm.vocabulary
        if token in vocabulary.end_tokens and not self.config.ignore_eos:
            self.finish = "stop"
            return False
        self.tokens.append(token)
        self.stream.push(vocabulary.piece(token))
        if self.stream.stopped:
            self.finish = "stop"
        return not self.stream.stopped

    @property
    def text(self) -> str:
        self.stream.finish()
        return self.stream.text


def decode(
    models: Sequence[Model],
    prompts: Sequence[Sequence[int]],
    config: Config,
    combine: Combine,
    depth: int | None,
    *,
    forced: Sequence[int] = (),
) -> Decoded:
    """Continue each model's prompt with the same tokens, drawn from what `combine` makes of their rows.

    Args:
        models: the draft first; all with the draft's vocabulary, one sequence each.
        depth: positions that are combined; behind them the draft goes on alone. None: all.
        forced: what the answer begins with.

    Raises:
        ContextFull: a prompt leaves no room for an answer.
        Cancelled, ModelError: as the models' `extend`.
    """
    limit = max_new_tokens(models, prompts, config)
    hold(models, prompts)
    sampler, answer = RowSampler(config), Decoded(models[0], config)
    depth = limit if depth is None else depth
    for position in range(limit):
        if position < len(forced):
            token = forced[position]
        elif position < depth:
            token = sampler.sample(combine([model.lm.logits(0) for model in models]))
        else:
            token = sampler.sample(models[0].lm.logits(0))
        sampler.accept(token)
        if not answer.append(token) or len(answer.tokens) == limit:
            break
        for model in models if position + 1 < depth else models[:1]:
            model.lm.extend({0: [token]})
    return answer


def decode_alone(model: Model, prompt: Sequence[int], config: Config, forced: Sequence[int] = ()) -> Decoded:
    """One model's own answer, every token drawn. Raises: as `decode`."""
    return decode([model], [prompt], config, lambda rows: rows[0], 0, forced=forced)


def hold(models: Sequence[Model], prompts: Sequence[Sequence[int]]) -> None:
    """Decode each model's prompt."""
    for model, ids in zip(models, prompts, strict=True):
        model.lm.set_tokens({0: ids})


def max_new_tokens(models: Sequence[Model], prompts: Sequence[Sequence[int]], config: Config) -> int:
    """Tokens that an answer may have behind the prompts.

    Raises:
        ContextFull: none.
    """
    for model, ids in zip(models, prompts, strict=True):
        if len(ids) >= model.context:
            raise ContextFull(
                f"the prompt needs {len(ids)} tokens, the context of {model.card.name} holds {model.context}",
                "Raise --context as far as the model allows.",
            )
    lefts = (model.context - len(ids) for model, ids in zip(models, prompts, strict=True))
    return min(config.max_tokens, *lefts)


def encoded(model: Model, prompt: Prompt, config: Config, *, is_anchor: bool) -> list[int]:
    """A prompt's ids as this model reads it, its role's system prompt and what answers begin with too."""
    asked = turns_of(prompt)
    turns = anchor_turns(asked, config) if is_anchor else with_system(asked, config.system)
    return [*model.format.encode(turns, model.lm.vocabulary), *prefilled(model, config)]


def require_one_vocabulary(models: Sequence[Model]) -> None:
    """Raises: ModelError: the models' tokens are not the same."""
    first, *others = models
    for other in others:
        if other.lm.vocabulary.fingerprint != first.lm.vocabulary.fingerprint:
            raise ModelError(
                f"{other.card.name} and {first.card.name} do not share a vocabulary",
                "This method adds up the logits of both: take models of one family.",
            )


def result(
    answer: Decoded, models: Mapping[str, Model], config: Config, prompt_tokens: int, watch: Stopwatch
) -> Result:
    """One unjudged beam as a result; who refused is not told by these methods."""
    text = answer.text
    tokens = len(answer.tokens)
    degenerate = is_degenerate(answer.tokens, text)
    beam = BeamResult(0, text, tokens, 0, answer.finish, 0.0, degenerate, None)
    return Result(
        text=text,
        reasoning=None,
        finish_reason=answer.finish,
        chosen=0,
        refusal=Refusal(declines(text), None),
        beams=(beam,),
        bridge=BridgeResult(),
        usage=Usage(prompt_tokens, tokens),
        timings=watch.timings,
        config=config.model_dump(),
        models={role: model.card for role, model in models.items()},
        version=__version__,
        llama_cpp=build(),
    )
