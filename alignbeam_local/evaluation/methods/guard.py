"""A judge before and after the draft: what it does not call safe is blocked."""

from dataclasses import replace
from typing import ClassVar

from ...config import Config
from ...engine.open_models import Model
from ...engine.stopwatch import Stopwatch
from ...judge.judge import Judge
from ...result import Refusal, Result, Usage, Verdict
from .decoding import Decoded, decode_alone, encoded, result
from .method import Answerer, Method
from .model_methods import Models, in_slots
from .model_pool import ModelPool
from .prompt import Prompt, turns_of

#: Stands for an answer when the request alone is judged: every kind of judge reads a request with an answer.
COMPLIES = "Sure, here is how to do that, step by step:"


class Guard(Method):
    """The judge as a safeguard of what goes in and of what comes out; the draft answers alone in between.

    Llama Guard (Inan et al. 2023, arXiv 2312.06674), section 2: prompt and response are classified, each by
    itself. Any judge of models.toml can be the guard, a Llama Guard too; an unscored one blocks.
    """

    name: ClassVar[str] = "guard"
    roles: ClassVar[tuple[str, ...]] = ("draft", "judge")
    reads: ClassVar[tuple[str, ...]] = ("threshold", "refusal_text")

    def open(self, config: Config, pool: ModelPool) -> Answerer:
        draft = pool.models(config, {"draft": config.draft})
        judge, card = pool.judge(config)

        def answer(models: Models, prompt: Prompt, config: Config) -> Result:
            made = _guarded(models["draft"], judge, prompt, config)
            return replace(made, models={**made.models, "judge": card})

        return in_slots(answer, draft, config.parallel)


def _guarded(draft: Model, judge: Judge, prompt: Prompt, config: Config) -> Result:
    watch = Stopwatch()
    judge.forget()
    before = _verdict(judge, prompt, COMPLIES, config, watch)
    ids = encoded(draft, prompt, config, is_anchor=False)
    if before.verdict != "safe":
        made = result(Decoded(draft, config), {"draft": draft}, config, len(ids), watch)
        return replace(_blocked(made, config), beams=())
    made = result(decode_alone(draft, ids, config), {"draft": draft}, config, len(ids), watch)
    after = _verdict(judge, prompt, (config.prefill or "") + made.text, config, watch)
    judged = replace(made, beams=(replace(made.beams[0], judge=after),), timings=watch.timings)
    return judged if after.verdict == "safe" else _blocked(judged, config)


def _verdict(judge: Judge, prompt: Prompt, answer: str, config: Config, watch: Stopwatch) -> Verdict:
    with watch.part("judge_ms"):
        (verdict,) = judge.judge(turns_of(prompt), [answer], config.threshold)
    return verdict


def _blocked(made: Result, config: Config) -> Result:
    return replace(
        made,
        text=config.refusal_text,
        finish_reason="blocked",
        chosen=None,
        refusal=Refusal(True, "judge"),
        usage=Usage(made.usage.prompt_tokens, 0),
    )
