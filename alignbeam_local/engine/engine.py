"""Owns the models and makes answers: one stream of events that every front end consumes."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from ..cancellation import Cancellation
from ..config import Config
from ..conversation.trimming import left_out
from ..errors import ModelError, UsageError
from ..events import Done, Event, Notice, Phase, Result
from ..llama.library import build, default_threads
from ..lm.prefix_store import PrefixStore
from ..machine.probe import machine_key
from ..models.registry import Registry
from ..pair.check import check_pair
from ..prompt.formats import Message
from ..search.bridge import bridge_between
from .answer import Answer
from .background import Background
from .loader import Loader, require_silent_chat
from .open_judge import make_judge
from .open_models import Parts, Room, larger, rooms
from .prompters import followers
from .read_ahead import read_ahead, read_beginning
from .scheduler import ParallelAnswers
from .snapshot import Snapshot, put_back, take, take_of
from .stopwatch import Stopwatch

#: What can't change between answers of one engine: these decide what is loaded.
LOADING_KNOBS = frozenset(
    {
        *("draft", "anchor", "judge", "profile", "force", "context", "threads", "parallel", "kv"),
        *("prompt_cache", "flash_attn", "cache_type_k", "cache_type_v"),
        *("gpu_layers", "main_gpu", "tensor_split"),
    }
)


def loaded_otherwise(config: Config, other: Config) -> Iterator[str]:
    """The loading knobs that two configurations differ in."""
    return (knob for knob in sorted(LOADING_KNOBS) if getattr(config, knob) != getattr(other, knob))


def fixed(knob: str) -> UsageError:
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
        self._loader = Loader(config, registry, self.cancellation)
        self._parts: Parts | None = None
        self._rooms: dict[str, Room] = {}  # what was opened last: never less the next time
        self._aside: Snapshot | None = None  # what the models held, until they are open again
        self._load_notices: list[str] = []  # true of every answer, until the next load

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def parts(self) -> Parts:
        """What is open; the models are loaded."""
        assert self._parts is not None
        return self._parts

    def load(self, config: Config | None = None, *, judge_later: bool = False) -> Iterator[Event]:
        """Open what this configuration needs and is not open yet; what the models hold stays.

        A judge reads its worked examples here, so that no answer waits for them; `judge_later` leaves that
        to `read_ahead`, or else to the first verdict. What was kept on disk is not read but restored.

        Raises:
            Cancelled: the user stopped it. The next load starts over.
            UsageError: a loading knob differs from the engine's.
            UsageError, ModelError: a model that is not named, not there, damaged, of the wrong kind, too
                large for this machine; a pair whose bridge is hopeless. The next load starts over.
        """
        config = config or self.config
        self._refuse_loading_knobs(config)
        self.background.stop()
        if self._parts is not None and self._parts.serves(config):
            return
        self._set_aside()
        yield Phase("load")
        told, self._load_notices = self._load_notices, []
        try:
            for notice in self._open(config, larger(self._rooms, rooms(config))):
                self._load_notices.append(notice.message)
                if notice.message not in told:
                    yield notice
            judge = self.parts.judge
            if judge and not judge.restore_prefixes() and not judge_later:
                yield Phase("examples")
                judge.read_prefixes()
        except BaseException:
            self._set_aside()
            raise

    def change(self, config: Config) -> Iterator[Event]:
        """Load with other loading knobs; what models hold that stay stays.

        Raises:
            UsageError, ModelError: as `load`; the engine then goes on with the old knobs.
        """
        before, opened = self.config, self._rooms
        self._adopt(config, {})
        try:
            yield from self.load()
            self.cancellation.check()  # whoever is told that it was cancelled goes on with the old knobs
        except BaseException:
            self._adopt(before, opened)
            raise

    def _adopt(self, config: Config, opened: dict[str, Room]) -> None:
        self._set_aside()
        self.config, self._rooms, self._load_notices = config, opened, []
        self._loader.adopt(config)

    def stream(
        self, messages: Sequence[Message], config: Config | None = None
    ) -> Generator[Event, None, None]:
        """Answer the last user turn of a conversation; ends in `Done`.

        Args:
            messages: the conversation; a system turn overrides the `system` knob.
            config: knobs of this answer, if other than the engine's.

        Raises:
            ContextFull: the conversation does not fit.
            UsageError, ModelError: see `load`.
        """
        config = config or self.config
        watch = Stopwatch()
        with watch.part("load_ms"):
            yield from self.load(config)
        yield from self._made(self.parts, config, watch).stream(messages)

    def parallel(self) -> ParallelAnswers:
        """As many answers at once as `parallel` says, on what is open: until something is opened anew."""
        return ParallelAnswers(self.parts, self.config.parallel, self._made)

    def _made(self, parts: Parts, config: Config, watch: Stopwatch | None = None) -> Answer:
        return Answer(parts, config, watch or Stopwatch(), backend=build(), notices=self._load_notices)

    def left_out(self, turns: Sequence[Message], config: Config, already: int) -> int:
        """How many leading turns don't fit any more (see `trimming`); the models are loaded.

        Raises:
            ContextFull: the last question does not fit by itself.
        """
        return left_out(followers(self.parts, config), turns, already)

    def read_ahead(self, turns: Sequence[Message], config: Config) -> None:
        """Let the models read what the next answer needs, in the background: see `read_ahead`.

        Every other call of the engine's stops it, and so does `background.stop`.
        """
        if self._parts is not None:
            self.background.start(partial(read_ahead, self._parts, list(turns), config))

    def snapshot(self, turns: Sequence[Message], config: Config) -> Snapshot:
        """What the models hold of a conversation, and nothing else.

        Raises:
            ModelError: the backend failed.
        """
        self.background.stop()
        return take_of(self._parts, turns, config) if self._parts else Snapshot()

    def put_back(self, snapshot: Snapshot) -> bool:
        """Let the models hold it again; False if any of it is another model's. Raises: as `load`."""
        for _ in self.load():
            pass
        return put_back(self.parts, snapshot)

    def answer(self, messages: Sequence[Message], config: Config | None = None) -> Result:
        """The same, waiting for the end."""
        for event in self.stream(messages, config):
            if isinstance(event, Done):
                return event.result
        raise AssertionError("a stream ends in Done")

    def forget(self) -> None:
        """Drop what draft, anchor and judge hold of prompts.

        A prompt that is decoded behind another one's beginning comes in another batch, which moves logits:
        after this the next answer depends on its prompt and knobs alone.
        """
        self.background.stop()
        self._aside = None
        if self._parts is not None:
            self._parts.forget_prompts()
            if self._parts.judge is not None:
                self._parts.judge.forget()

    def close(self) -> None:
        """Free everything; the engine can be used again."""
        self.background.stop()
        self._parts = self._aside = None
        self._loader.close()

    def _set_aside(self) -> None:
        """Close the contexts, keep what they hold."""
        self.background.stop()
        if self._parts is not None:
            with suppress(ModelError):  # then it is read anew
                self._aside = take(self._parts)
        self._parts = None
        self._loader.close_contexts()

    def _refuse_loading_knobs(self, config: Config) -> None:
        for knob in loaded_otherwise(config, self.config):
            raise fixed(knob)

    def _open(self, config: Config, wanted: dict[str, Room]) -> Iterator[Notice]:
        loader = self._loader
        files = {role: loader.find(role) for role in wanted}
        loader.keep_only(file.path for file in files.values())
        loader.place({role: (files[role].path, room) for role, room in wanted.items()})
        yield from loader.prepare(*(file.path for file in files.values()))
        models = {role: loader.open(role, files[role], room) for role, room in wanted.items()}
        for role in ("anchor", "judge"):
            if role in models:
                require_silent_chat(role, models[role].card.name, models[role].format)
        draft, anchor, judge = (models.get(role) for role in ("draft", "anchor", "judge"))
        assert draft is not None
        for model in filter(None, (draft, anchor)):
            if model.context < config.context:
                yield Notice(f"{model.card.name} was made for {model.context} tokens: no more of a chat fits")
        bridge = bridge_between(draft.lm.vocabulary, draft.format, anchor.lm.vocabulary) if anchor else None
        if bridge:
            yield from check_pair(bridge, force=config.force)
        store = _store(config)
        opened = make_judge(judge, files["judge"].entry.judge, store=store) if judge else None
        self._parts = Parts(draft, anchor, bridge, opened, judge, wanted)
        self._rooms = wanted
        if self._aside is not None:
            put_back(self._parts, self._aside)
            self._aside = None
        if store and config.prompt_cache == "all":
            for follower in followers(self._parts, config):
                read_beginning(follower, store)


def _store(config: Config) -> PrefixStore | None:
    """Where prefixes are kept; they are no others' than these threads'."""
    if config.prompt_cache == "none":
        return None
    return PrefixStore(f"{machine_key()}|{config.threads or default_threads()}")
