"""What the method costs: answers against the draft alone, in turns, so that the machine's drift cancels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from ..config import Config
from ..engine.engine import Engine
from ..engine.prompters import draft_prompter
from ..errors import ModelError, UsageError
from ..heads.head import RequestHead
from ..llama.context import LlamaLM
from ..llama.library import build, default_threads, system_info
from ..llama.plain import PlainDraft
from ..lm.language_model import SamplerSettings
from ..lm.sequences import BATCH_TOKENS
from ..machine.machine import peak_memory, this_machine
from ..machine.memory import cell_bytes
from ..models.gguf_header import require_model
from ..prompt.formats import REASONS_HINT
from ..prompt.message import Message
from ..roles import reader_role
from .cases import BenchPlan, Case, Shape, sweep_cases, table_cases
from .floor import bytes_per_decode
from .prompts import prompt_of
from .report import (
    Alone,
    BenchReport,
    ColdStart,
    MeasuredCase,
    Memory,
    SweepResult,
    Throughput,
    mixed_use,
    report_alone,
    report_method,
    report_second_turn,
    report_throughput,
)
from .runs import TimedAnswer, second_turn, timed_answer
from .together import Together

T = TypeVar("T")


def run_bench(engine: Engine, plan: BenchPlan, tell: Callable[[str], None]) -> BenchReport:
    """Measure everything; `tell` hears what is being measured.

    Raises:
        UsageError, ModelError, ContextFull: as `Engine.stream`; or the draft reasons before it answers.
    """
    machine, table = this_machine(), table_cases(plan)
    cold_start = _load(engine, table[-1].config)
    if engine.models.draft.format.thinking == "thinks":
        raise UsageError(
            "the draft reasons before it answers", f"Bench one that answers at once. {REASONS_HINT}"
        )
    head = _head(engine, plan.config)
    prompts = _Prompts(engine)
    tell("memory")
    timed_answer(engine, prompts.next(plan.prompt_tokens), table[min(1, len(table) - 1)].config)
    memory = _memory(engine)
    for case in (case for sweep in plan.sweeps for case in sweep_cases(plan, sweep)):
        _load(engine, case.config)
    with _plain_draft(engine, plan) as plain:
        rounds = Rounds(engine, plain, plan, prompts=prompts, tell=tell)
        alone, methods = rounds.compare(table)
        report = BenchReport(
            machine=machine,
            threads=plan.config.threads or default_threads(),
            llama_cpp=build(),
            system_info=system_info(),
            models=engine.models.cards,
            config=plan.config.model_dump(),
            repeats=plan.repeats,
            bytes_per_decode=rounds.bytes_per_decode,
            cold_start=cold_start,
            memory=memory,
            alone=alone[0],
            methods=methods,
            second_turn=report_second_turn(rounds.second_turns(table[0])),
            mixed_use=mixed_use(methods, f"K={plan.config.beams}", head) if head else None,
            sweeps=tuple(
                SweepResult(sweep.knob, sweep.values, *rounds.compare(sweep_cases(plan, sweep)))
                for sweep in plan.sweeps
            ),
            num_at_once=plan.num_at_once,
            throughputs=(),
        )
    try:
        return replace(report, throughputs=_throughputs(engine, plan, prompts, tell))
    except ModelError as error:  # most often: not enough memory; what was measured stays
        tell(f"{plan.num_at_once} prompts at once were not measured: {error}")
        return report


def _throughputs(
    engine: Engine, plan: BenchPlan, prompts: "_Prompts", tell: Callable[[str], None]
) -> tuple[Throughput, ...]:
    """Last, because it opens the models with more room."""
    number = plan.num_at_once
    if number == 1:
        return ()
    tell(f"{number} prompts at once")
    config = plan.config.with_values({"parallel": number})
    for _ in engine.change(config):
        pass
    with _plain_draft(engine, plan, number) as plain:

        def ask() -> list[list[Message]]:
            return [prompts.next(plan.prompt_tokens) for _ in range(number)]

        together = Together(engine, plain, config, ask)
        pairs = {"draft alone": together.alone()}
        pairs |= {case.name: together.answered(case) for case in table_cases(plan)[:2]}
        tasks = [task for pair in pairs.values() for task in pair]
        found = [seconds[plan.warm_up :] for seconds in in_turns(tasks, plan.warm_up + plan.repeats)]
        return tuple(
            report_throughput(name, number, one_by_one, at_once)
            for name, one_by_one, at_once in zip(pairs, found[::2], found[1::2], strict=True)
        )


def _load(engine: Engine, config: Config) -> ColdStart:
    start = perf_counter()
    for _ in engine.load(config):
        pass
    judge = engine.models.judge
    return ColdStart(1e3 * (perf_counter() - start), 1e3 * judge.lm.compute_seconds if judge else 0.0)


def _head(engine: Engine, config: Config) -> RequestHead | None:
    """What reads requests, where steering goes by them. Raises: UsageError: there is none."""
    if not config.steers_by_request:
        return None
    anchor = engine.models.anchors[0]
    if anchor.head is None:
        raise UsageError(
            f"there is no head for {anchor.model.card.name}, so every request is steered",
            "Leave out --steer by_request, or fit one: alignbeam heads fit",
        )
    return anchor.head


def _memory(engine: Engine) -> Memory:
    opened, peak = engine.models, peak_memory()
    models = opened.by_role
    headers = [require_model(Path(model.card.path)) for model in models.values()]
    weights = sum({header.path.resolve(): header.bytes for header in headers}.values())
    kv = sum(
        model.lm.num_cells * cell_bytes(header, engine.config.cache_types(role))
        for (role, model), header in zip(models.items(), headers, strict=True)
    )
    return Memory(peak, weights, kv, peak - weights - kv)


@contextmanager
def _plain_draft(engine: Engine, plan: BenchPlan, num_sequences: int = 1) -> Iterator[PlainDraft]:
    """On the weights that the engine's draft has, with as many threads and a cache of the same kind."""
    draft = engine.models.draft.lm
    assert isinstance(draft, LlamaLM)
    threads = plan.config.threads or default_threads()
    cells = num_sequences * plan.config.context
    plain = PlainDraft(
        draft,
        context=cells,
        threads=threads,
        num_sequences=num_sequences,
        flash_attn=plan.config.flash_attn,
        cache_types=plan.config.cache_types("draft"),
    )
    try:
        yield plain
    finally:
        plain.close()


def in_turns(tasks: Sequence[Callable[[], T]], num_rounds: int) -> list[list[T]]:
    """What each task gave in each round; every round begins with another task."""
    found: list[list[T]] = [[] for _ in tasks]
    for start in range(num_rounds):
        for offset in range(len(tasks)):
            index = (start + offset) % len(tasks)
            found[index].append(tasks[index]())
    return found


class _Prompts:
    """Questions of any length, no two alike."""

    def __init__(self, engine: Engine) -> None:
        self._vocabulary = engine.models.draft.lm.vocabulary
        self._numbers = count(1)

    def next(self, num_tokens: int) -> list[Message]:
        """A conversation of one question."""
        return [Message("user", prompt_of(num_tokens, next(self._numbers), self._vocabulary))]


class Rounds:
    """Cases and the draft alone, measured in turns."""

    def __init__(
        self,
        engine: Engine,
        plain: PlainDraft,
        plan: BenchPlan,
        *,
        prompts: _Prompts,
        tell: Callable[[str], None],
    ) -> None:
        """Nothing is measured yet; `plain` is the engine's draft."""
        self._engine = engine
        self._plain = plain
        self._plan = plan
        self._prompts = prompts
        self._tell = tell
        models = engine.models
        layers = {reader_role(anchor.role): anchor.head.layer for anchor in models.anchors if anchor.head}
        self.bytes_per_decode = {
            role: bytes_per_decode(Path(model.card.path), layers.get(role))
            for role, model in models.by_role.items()
        }

    def compare(self, cases: Sequence[Case]) -> tuple[tuple[Alone, ...], tuple[MeasuredCase, ...]]:
        """Each case, and the draft alone with as long a prompt and answer, both in the order of the cases."""
        shapes = list(dict.fromkeys(case.shape for case in cases))
        runs = self._rounds([*map(self._alone, shapes), *map(self._answered, cases)])
        alone = dict(zip(shapes, runs, strict=False))
        weights = self.bytes_per_decode
        return (
            tuple(report_alone(case.shape, alone[case.shape], weights) for case in cases),
            tuple(
                report_method(case.name, found, alone[case.shape], weights)
                for case, found in zip(cases, runs[len(shapes) :], strict=True)
            ),
        )

    def second_turns(self, case: Case) -> list[tuple[float, float]]:
        """Milliseconds to the first token of a second turn, ours and the draft's alone."""

        def task() -> tuple[float, float]:
            self._tell("second turn")
            first, second = (self._prompts.next(case.prompt_tokens)[0].content for _ in range(2))
            return second_turn(self._engine, self._plain, first, second, case.config)

        return self._rounds([task])[0]

    def _rounds(self, tasks: Sequence[Callable[[], T]]) -> list[list[T]]:
        warm_up = self._plan.warm_up
        return [found[warm_up:] for found in in_turns(tasks, warm_up + self._plan.repeats)]

    def _alone(self, shape: Shape) -> Callable[[], TimedAnswer]:
        settings = SamplerSettings.of(self._plan.config, shape.new_tokens)

        def task() -> TimedAnswer:
            self._tell(f"draft alone, {shape.prompt_tokens} and {shape.new_tokens} tokens")
            draft = draft_prompter(self._engine.models, self._plan.config)
            ids = draft.encode(self._prompts.next(shape.prompt_tokens))
            answer = self._plain.complete(ids, settings, shape.new_tokens)
            num_decodes = -(-len(ids) // BATCH_TOKENS) + shape.new_tokens - 1
            return TimedAnswer(
                answer.total_ms,
                answer.first_token_ms,
                len(answer.tokens),
                {"draft": num_decodes},
                decoded={"draft": len(ids) + shape.new_tokens - 1},
            )

        return task

    def _answered(self, case: Case) -> Callable[[], TimedAnswer]:
        def task() -> TimedAnswer:
            self._tell(case.name)
            return timed_answer(self._engine, self._prompts.next(case.prompt_tokens), case.config)

        return task
