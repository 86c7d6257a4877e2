"""`filter --ray`: workers of a cluster answer the records, which are written in their order."""

import sys
from collections import deque
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING

from alignbeam_local.errors import Cancelled, ModelError, UsageError
from alignbeam_local.events import Notice
from alignbeam_local.result import Result

from .. import session
from ..console.terminal import say
from ..crew import Duty, dispatcher, with_cpus
from ..inputs import Arriving
from ..kept import Kept
from ..options import Options
from ..pulling import needed_models
from .run import FilterRun, Form, Record

if TYPE_CHECKING:
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.cluster.crew import Json
    from alignbeam_local.cluster.dispatcher import Dispatcher
    from alignbeam_local.config import Config
    from alignbeam_local.models.registry import Registry

_MOST_UNWRITTEN = 1000  # records that wait for one before them


@dataclass
class _Record(Record):
    """It can be written once it is awaited no more."""

    is_awaited: bool = False


class SpreadRun:
    """One pass over stdin whose answers are made elsewhere."""

    def __init__(
        self, run: FilterRun, config: "Config", workers: "Dispatcher", cancellation: "Cancellation"
    ) -> None:
        """`config` is what the workers were compared by."""
        self._run = run
        self._config = config
        self._workers = workers
        self._cancellation = cancellation
        self._unwritten: deque[_Record] = deque()
        self._begun: dict[int, _Record] = {}
        self._taken = 0

    def answer_all(self, source: Arriving) -> None:
        """Take records as they come, as many as workers have room for; wait for one only if none is left.

        Raises:
            Cancelled: the user stopped the run.
            AlignBeamError: no worker can work.
        """
        while (raw := source.take()) is not None:
            with self._cancellation.on_interrupt():
                self._take_up(raw)
                while self._unwritten:
                    self._cancellation.check()
                    self._write_ready()
                    self._take_up_ready(source)
                    self._step()
                self._cancellation.check()

    def _take_up_ready(self, source: Arriving) -> None:
        while self._workers.has_room and len(self._unwritten) < _MOST_UNWRITTEN:
            raw = source.take(wait=False)
            if raw is None:
                return
            self._take_up(raw)

    def _take_up(self, raw: bytes) -> None:
        from alignbeam_local.cluster.crew import Task

        self._taken += 1
        record = _Record(self._taken)
        self._unwritten.append(record)
        self._run.read(record, raw)
        if record.asked and (lacking := _lacking(record.asked[1], self._config)):
            record.outcome = UsageError(
                f"this line needs {lacking}, by which workers were not compared",
                "Give its knobs as flags too, so that the run needs it.",
            )
        elif record.asked:
            record.is_awaited = True
            self._begun[record.number] = record
            self._workers.begin(Task(record.number, record.asked, f"line {record.number}"))

    def _step(self) -> None:
        """Raises: Cancelled, AlignBeamError: as `Dispatcher.step`."""
        for task, outcome in self._workers.step() if self._begun else ():
            record = self._begun.pop(task.key)
            record.outcome, record.is_awaited = outcome, False
            if isinstance(outcome, Cancelled):
                raise outcome

    def _write_ready(self) -> None:
        while self._unwritten and not self._unwritten[0].is_awaited:
            record = self._unwritten.popleft()
            with closing(self._run.view(record.number)) as view:
                for notice in record.outcome.notices if isinstance(record.outcome, Result) else ():
                    view.show(Notice(notice))
            self._run.write(record.number, record.row, record.outcome)


def _lacking(config: "Config", compared: "Config") -> str:
    """What an answer with these knobs needs that a run with those does not; empty: nothing."""
    if more := [role for role in config.roles if role not in compared.roles]:
        return f"the {' and '.join(more)}"
    has_others = config.goes_by_tokens and not compared.goes_by_tokens
    return "safety tokens" if has_others or config.safety_file != compared.safety_file else ""


def filter_on_ray(
    address: str, workers: int | None, prepared: session.Session, form: Form, kept: Kept
) -> FilterRun:
    """Answer all of stdin by workers of the cluster.

    Raises:
        Cancelled: the user stopped it.
        UsageError, AlignBeamError: something that can't be; see the parts.
    """
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.cluster.model_work import roles_about
    from alignbeam_local.cluster.ray_cluster import connected

    out = sys.stdout
    _refuse(prepared.options, form, prepared.settings.config)
    prepared.provide(needed_models(prepared.settings.config))
    with connected(address):
        prepared = replace(prepared, settings=with_cpus(prepared.settings))
        cancellation = Cancellation()
        run = _filter_run(prepared, form, kept, out, cancellation)
        duty = _duty(prepared.settings.config, prepared.registry, prepared.options)
        welcome = partial(_greet, roles_about(prepared.settings.config, prepared.registry))
        with dispatcher(duty, cancellation, most_workers=workers, welcome=welcome, tell=say) as found:
            source = Arriving(sys.stdin.buffer, form.separator)
            SpreadRun(run, prepared.settings.config, found, cancellation).answer_all(source)
    return run


def _greet(roles: "Json", about: "Json") -> None:
    """Raises: UsageError, ModelError: a worker has other builds, models, or records of them."""
    from alignbeam_local.cluster.builds import require_same_builds

    require_same_builds(about)
    if differing := [role for role in roles if about["roles"].get(role) != roles[role]]:
        raise ModelError(
            f"its {' and '.join(differing)} or what is known of it differ",
            "Give all machines the same files, and the same records of judges and heads.",
        )


def _filter_run(
    prepared: session.Session, form: Form, kept: Kept, out: IO[str], cancellation: "Cancellation"
) -> FilterRun:
    """A pass whose own engine loads nothing."""
    engine = session.open_engine(prepared.settings.config, prepared.registry, cancellation)
    return FilterRun(engine, prepared.settings, prepared.options, form, set(), kept=kept, out=out)


def _refuse(options: Options, form: Form, config: "Config") -> None:
    """Raises: UsageError: what workers can't do."""
    if options.trace:
        raise UsageError("--ray and --trace", "Workers send answers, not the steps of their making.")
    if form.timeout is not None:
        raise UsageError("--ray and --timeout", "Lower --max-tokens: workers end an answer by themselves.")
    if config.parallel > 1:
        raise UsageError(
            "--ray and --parallel", "Each worker answers one prompt at a time: take more workers."
        )


def _duty(config: "Config", registry: "Registry", options: Options) -> Duty:
    from alignbeam_local.cluster.model_work import AnswerWork
    from alignbeam_local.cluster.share import Opened
    from alignbeam_local.cluster.wanted import WantedModel
    from alignbeam_local.machine.context_size import context_sizes

    models = tuple(WantedModel.of(spec, registry) for spec in needed_models(config))
    work = AnswerWork(models, registry, options.pull and not options.offline, config)
    opened = {role: (config.model_named(role), size) for role, size in context_sizes(config).items()}
    return Duty(work, [Opened(config, opened)], config.threads)
