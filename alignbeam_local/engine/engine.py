"""Owns the models and makes answers: one stream of events that every front end consumes."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from ..cancellation import Cancellation
from ..config import Config, knobs_that
from ..errors import ModelError, UsageError
from ..events import Done, Event, Notice, Phase
from ..heads.answer_head import ANSWER_HEADS, AnswerHead, JudgeRecord, no_answer_head
from ..heads.features import template_key
from ..heads.head import REQUEST_HEADS
from ..llama.grammar import check_grammar
from ..llama.library import build, default_threads, usable_processors
from ..lm.grammar import grammar_of
from ..machine.context_size import ContextSize, context_sizes, larger
from ..models.registry import ModelFile, Registry
from ..pair.check import check_pair
from ..prompt.message import Message
from ..result import Result
from ..roles import anchor_number, file_role, is_anchor, is_reader, reader_role, twin_role
from ..search.bridge import bridge_between
from ..search.safety_tokens import require_tokens
from .answering.answer import Answer
from .background import Background
from .examples import ExampleReading
from .loader import Loader, require_silent_chat
from .open_judge import make_judge, prefix_store
from .open_models import Anchor, Model, OpenModels
from .prompters import prompters
from .read_ahead import read_ahead, read_beginning
from .scheduler import AnswerScheduler
from .snapshot import Snapshot, capture, capture_conversation, restore
from .stopwatch import Stopwatch
from .trimming import left_out

#: What can't change between answers of one engine: these decide what is loaded.
LOADING_KNOBS = frozenset(knobs_that("loads"))


def last_result(events: Iterable[Event]) -> Result:
    """What a stream of events ends in."""
    for event in events:
        if isinstance(event, Done):
            return event.result
    raise AssertionError("a stream ends in Done")


def changed_loading_knobs(config: Config, other: Config) -> Iterator[str]:
    """The loading knobs that two configurations differ in."""
    return (knob for knob in sorted(LOADING_KNOBS) if getattr(config, knob) != getattr(other, knob))


def loading_knob_error(knob: str) -> UsageError:
    """The error for a loading knob that an answer alone would change."""
    return UsageError(f"{knob} can't change between answers", "Start again with this value.")


class Engine:
    """The draft, the anchor and the judge of one configuration, and their caches between answers."""

    def __init__(
        self, config: Config, registry: Registry, *, cancellation: Cancellation | None = None
    ) -> None:
        """Load nothing yet: that is `load`'s, or the first answer's."""
        self.config = config
        self.cancellation = cancellation or Cancellation()
        self._registry = registry
        self.background = Background(self.cancellation)
        self.examples = ExampleReading(self.cancellation)
        self._loader = Loader(config, registry, self.cancellation)
        self._models: OpenModels | None = None
        self._sizes: dict[str, ContextSize] = {}  # what was opened last: never less the next time
        self._aside: Snapshot | None = None  # what the models held, until they are open again
        self._load_notices: list[str] = []  # true of every answer, until the next load

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_remote(self) -> bool:
        """Whether another process holds the models."""
        return False

    @property
    def models(self) -> OpenModels:
        """What is open; the models are loaded."""
        assert self._models is not None
        return self._models

    def load(self, config: Config | None = None, *, judge_later: bool = False) -> Iterator[Event]:
        """Open what this configuration needs and is not open yet; what the models hold stays.

        A judge reads its worked examples here, so that no answer waits for them; `judge_later` leaves that
        to whoever starts `examples`, or else to the first verdict. What was kept on disk is not read but
        restored.

        Raises:
            Cancelled: the user stopped it. The next load starts over.
            UsageError: a loading knob differs from the engine's, or there is a grammar that is none.
            UsageError, ModelError: a model that is not named, not there, damaged, of the wrong kind, too
                large for this machine; a pair whose bridge is hopeless. The next load starts over.
        """
        config = config or self.config
        self._require_possible(config)
        self.background.stop()
        if self.serves(config):
            return
        self._set_aside()
        yield Phase("load")
        earlier, self._load_notices = self._load_notices, []
        try:
            for notice in self._open(config, larger(self._sizes, context_sizes(config))):
                self._load_notices.append(notice.message)
                if notice.message not in earlier:
                    yield notice
            judge = self.models.judge
            if judge and not judge.restore_prefixes() and not judge_later:
                yield from self.examples.rest(judge)
        except BaseException:
            self._set_aside()
            raise

    def change(self, config: Config) -> Iterator[Event]:
        """Load with other loading knobs; what models hold that stay stays.

        Raises:
            UsageError, ModelError: as `load`; the engine then goes on with the old knobs.
        """
        before, opened = self.config, self._sizes
        self._adopt(config, {})
        try:
            yield from self.load()
            self.cancellation.check()  # whoever is told that it was cancelled goes on with the old knobs
        except BaseException:
            self._adopt(before, opened)
            raise

    def _adopt(self, config: Config, opened: dict[str, ContextSize]) -> None:
        self._set_aside()
        self.config, self._sizes, self._load_notices = config, opened, []
        self._loader.adopt(config)

    @property
    def judge_record(self) -> JudgeRecord | None:
        """What is known of the open judge, or of the answer head that judges alone; None: nothing is."""
        return self._models.judge_record if self._models else None

    @property
    def has_examples_to_read(self) -> bool:
        """Whether the first verdict has to wait until the judge, which is open, has read its examples."""
        judge = self._models.judge if self._models else None
        return judge is not None and not judge.holds_prefixes

    def stream(
        self, messages: str | Sequence[Message], config: Config | None = None, **knobs: Any
    ) -> Generator[Event, None, None]:
        """Answer the last user turn of a conversation; ends in `Done`.

        What `cancellation.set()` stopped is this answer, and no other after it.

        Args:
            messages: the conversation, or a question by itself; a system turn overrides the `system` knob.
            config: knobs of this answer, if other than the engine's.
            knobs: single ones, laid over `config`.

        Raises:
            ContextFull: the conversation does not fit.
            UsageError, ModelError: see `load`.
        """
        config = (config or self.config).with_values(knobs)
        messages = [Message("user", messages)] if isinstance(messages, str) else messages
        watch, beside = Stopwatch(), self._has_processors_to_spare
        if not beside:
            self.examples.stop()
        try:
            with watch.part("load_ms"):
                yield from self.load(config, judge_later=beside)
            if beside:
                self.examples.start(self.models.judge)
            yield from self._new_answer(self.models, config, watch).stream(messages)
        finally:
            if not self.cancellation.is_interrupted:  # a signal ends more than this answer
                self.cancellation.clear()

    def parallel(self) -> AnswerScheduler:
        """As many answers at once as `parallel` says, on what is open: until something is opened anew."""
        self.examples.stop()
        return AnswerScheduler(self.models, self.config.parallel, self._new_answer)

    def _new_answer(self, models: OpenModels, config: Config, watch: Stopwatch | None = None) -> Answer:
        watch = watch or Stopwatch()
        starved = self._loader.starvation.notice
        return Answer(models, config, watch, backend=build(), notices=self._load_notices, starved=starved)

    def left_out(self, turns: Sequence[Message], config: Config, already: int) -> int:
        """How many leading turns don't fit any more (see `trimming`); the models are loaded.

        Raises:
            ContextFull: the last question does not fit by itself.
        """
        return left_out(prompters(self.models, config), turns, already)

    def read_ahead(self, turns: Sequence[Message], config: Config) -> None:
        """Let the models read what the next answer needs, in the background: see `read_ahead`.

        Every other call of the engine's stops it, and so does `background.stop`. The judge reads its examples
        meanwhile, and goes on with them while an answer is made if there are processors for both.
        """
        if self._models is not None:
            self.background.start(partial(read_ahead, self._models, list(turns), config))
            self.examples.start(self._models.judge)

    def snapshot(self, turns: Sequence[Message], config: Config) -> Snapshot:
        """What the models hold of a conversation, and nothing else.

        Raises:
            ModelError: the backend failed.
        """
        self.background.stop()
        return capture_conversation(self._models, turns, config) if self._models else Snapshot()

    def restore(self, snapshot: Snapshot) -> bool:
        """Let the models hold it again; False if any of it is another model's. Raises: as `load`."""
        for _ in self.load():
            pass
        return restore(self.models, snapshot)

    def answer(self, messages: str | Sequence[Message], config: Config | None = None, **knobs: Any) -> Result:
        """Answer as `stream` does, and wait for the result."""
        return last_result(self.stream(messages, config, **knobs))

    def forget(self) -> None:
        """Drop what draft, anchor and judge hold of prompts.

        A prompt that is decoded behind another one's beginning comes in another batch, which moves logits:
        after this the next answer depends on its prompt and knobs alone.
        """
        self._stop_reading()
        self._aside = None
        if self._models is not None:
            self._models.forget_prompts()
            if self._models.judge is not None:
                self._models.judge.forget()

    def close(self) -> None:
        """Free everything; the engine can be used again."""
        self._stop_reading()
        self._models = self._aside = None
        self._loader.close()

    def _set_aside(self) -> None:
        """Close the contexts, keep what they hold."""
        self._stop_reading()
        if self._models is not None:
            with suppress(ModelError):  # then it is read anew
                self._aside = capture(self._models)
        self._models = None
        self._loader.close_contexts()

    def _stop_reading(self) -> None:
        self.background.stop()
        self.examples.stop()

    @property
    def _has_processors_to_spare(self) -> bool:
        """Whether the judge can read beside the others: threads without processors slow each other down."""
        return 2 * (self.config.threads or default_threads()) <= usable_processors()

    def serves(self, config: Config) -> bool:
        """Whether an answer with these knobs needs nothing that is not open."""
        return self._models is not None and self._models.serves(config)

    @property
    def load_notices(self) -> tuple[str, ...]:
        """What the last load had to say: true of every answer since."""
        return tuple(self._load_notices)

    def _require_possible(self, config: Config) -> None:
        """Raises: UsageError: a loading knob differs, a grammar is none, weights are too many or too few."""
        _ = config.weights
        for knob in changed_loading_knobs(config, self.config):
            raise loading_knob_error(knob)
        if grammar := grammar_of(config):
            check_grammar(grammar)

    def _open(self, config: Config, wanted: dict[str, ContextSize]) -> Iterator[Notice]:
        loader = self._loader
        files = {role: loader.find(role) for role in wanted}
        loader.keep_only(file.path for file in files.values())
        needs = {role: (files[role].path, size) for role, size in wanted.items()}
        if not loader.place(needs, spare=self._aside.num_bytes if self._aside else 0):
            self._aside = None  # its memory is what is missing: what was held is read anew
        yield from loader.prepare(*(file.path for file in files.values()))
        opened = {
            role: loader.open(role, files[role], size) for role, size in wanted.items() if not is_reader(role)
        }
        for role, model in opened.items():
            if role != "draft":
                require_silent_chat(role, model.card.name, model.format)
        draft, judge = opened["draft"], opened.get("judge")
        if config.goes_by_tokens:
            require_tokens(config, draft.lm.vocabulary, draft.card.name)
        anchors = yield from self._opened_anchors(opened, config, wanted, files)
        store = prefix_store(config)
        verdicts = make_judge(judge, files["judge"].entry.judge, store=store) if judge else None
        if verdicts and config.asks_judge and not verdicts.asks_about_requests:
            yield Notice(
                "the judge is not asked about requests: with request_by = judge the choice is safest"
            )
        head = _answer_head(draft) if config.needs_answer_head else None
        self._models = OpenModels(draft, anchors, verdicts, judge, self.examples, wanted, head)
        self._sizes = wanted
        if self._aside is not None:
            restore(self._models, self._aside)
            self._aside = None
        if store and config.prompt_cache == "all":
            for prompter in prompters(self._models, config):
                read_beginning(prompter, store)

    def _opened_anchors(
        self,
        opened: Mapping[str, Model],
        config: Config,
        wanted: Mapping[str, ContextSize],
        files: Mapping[str, ModelFile],
    ) -> Generator[Notice, None, tuple[Anchor, ...]]:
        """Each with its bridge, which was looked at, and with a reader where a head reads by it."""
        draft, anchors = opened["draft"], []
        own = sorted((r for r in opened if is_anchor(r) and r == file_role(r)), key=anchor_number)
        for model in (draft, *(opened[role] for role in own)):
            if model.context < config.context:
                yield Notice(f"{model.card.name} was made for {model.context} tokens: no more of a chat fits")
        for role in own:
            anchor = _bridged(draft, opened[role], role, opened.get(twin_role(role)))
            yield from _checked_pair(anchor, config, is_one_of_several=len(own) > 1)
            anchor = yield from _with_head(anchor)
            if anchor.head and (size := wanted.get(reader_role(role))):
                reader = self._loader.open(reader_role(role), files[role], size, reads=True)
                reader.lm.read_at(anchor.head.layers)
                anchor = replace(anchor, reader=reader)
            anchors.append(anchor)
        return tuple(anchors)


def _answer_head(draft: Model) -> AnswerHead:
    """Raises: ModelError: the draft has none, or a damaged one: without a judge nothing is let through."""
    head = ANSWER_HEADS.find(draft.card.weights_sha256, template_key(draft.format, draft.lm.vocabulary))
    if head is None:
        raise no_answer_head(draft.card.name)
    return head


def _with_head(anchor: Anchor) -> Generator[Notice, None, Anchor]:
    """The anchor with the head of its very file and template; a damaged record is as none, and told."""
    model = anchor.model
    try:
        head = REQUEST_HEADS.find(model.card.weights_sha256, template_key(model.format, model.lm.vocabulary))
    except ModelError:
        yield Notice("no head reads requests: a record of one is damaged; 'alignbeam heads show' says which")
        return anchor
    return replace(anchor, head=head)


def _bridged(draft: Model, anchor: Model, role: str, twin: Model | None) -> Anchor:
    bridge = bridge_between(draft.lm.vocabulary, draft.format, anchor.lm.vocabulary)
    return Anchor(anchor, bridge, role=role, twin=twin)


def _checked_pair(anchor: Anchor, config: Config, *, is_one_of_several: bool) -> Iterator[Notice]:
    """What there is to say of a bridge; of several it is said which. Raises: ModelError: it is hopeless."""
    name = f"{anchor.model.card.name}: " if is_one_of_several else ""
    try:
        for notice in check_pair(anchor.bridge, force=config.force):
            yield Notice(f"{name}{notice.message}")
    except ModelError as error:
        raise ModelError(f"{name}{error.message}", error.hint) from None
