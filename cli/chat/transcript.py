"""What is kept of a chat's conversation: in the log on disk, or with `--no-log` while the chat lasts."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

from alignbeam_local.conversation.claims import Claims, claimed_by
from alignbeam_local.conversation.export import Exported
from alignbeam_local.conversation.log import ConversationLog
from alignbeam_local.conversation.stored import StoredConversation, StoredExchange, checked_name, new_id, now
from alignbeam_local.errors import AlignBeamError, UsageError
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import REPLACED, Result

from ..console.terminal import say

#: The id of an exchange that is on no disk.
_NOT_STORED = 0


class OpenElsewhere(UsageError):
    """Another chat goes on with this conversation: two would mix up their answers."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another chat has '{name}' open", "Leave it there first, or take another name.")


class Transcript:
    """The exchanges of one conversation, and the log that they are mirrored to, if any."""

    def __init__(self, log: ConversationLog | None) -> None:
        """Begin a conversation; the log hears of it with its first exchange."""
        self.log = log
        self._claims = Claims(log.claims_dir) if log else None
        self.begin()

    def close(self) -> None:
        """Let other chats go on with it."""
        if self._claims:
            self._claims.close()

    def begin(self, name: str | None = None) -> None:
        """Go over to a new conversation; the one before stays in the log.

        Raises:
            UsageError: no name, or that of a conversation which another chat has begun.
        """
        new, name = new_id(), name and checked_name(name)
        self.claim(new, name)
        self.id, self.name, self.started = new, name, now()
        self.exchanges: list[StoredExchange] = []
        self._let_go_of_others()
        self._forget_unwritten()

    def claim(self, conversation: str, name: str | None) -> None:
        """Have it to ourselves, beside the one that is open. Raises: OpenElsewhere."""
        if self._claims and not self._claims.take(*claimed_by(conversation, name)):
            raise OpenElsewhere(name or conversation)

    @contextmanager
    def _claiming(self, conversation: str, name: str | None) -> Iterator[None]:
        """`claim`; what fails inside lets it go again."""
        self.claim(conversation, name)
        try:
            yield
        except BaseException:
            self._let_go_of_others()
            raise

    def _let_go_of_others(self) -> None:
        if self._claims:
            self._claims.keep_only(*claimed_by(self.id, self.name))

    def take_up(self, conversation: StoredConversation) -> None:
        """Go on with a conversation of the log. Raises: OpenElsewhere."""
        assert self.log is not None
        with self._claiming(conversation.id, conversation.name):
            exchanges = self.log.exchanges(conversation.id)  # it may fail: nothing is changed then
        self.id, self.name, self.started = conversation.id, conversation.name, conversation.started
        self.exchanges = exchanges
        self._let_go_of_others()
        self._forget_unwritten()

    def _forget_unwritten(self) -> None:
        """What the log could not be told yet: exchanges of it that are others by now, and that are gone."""
        self._replaced: set[int] = set()
        self._dropped: list[int] = []

    def find_or_begin(self, name: str) -> None:
        """Go on with the conversation of this name or id; without one, begin it."""
        every = self.require_log().conversations()
        found = next((one for one in every if name in (one.name, one.id)), None)
        try:
            if found:
                self.take_up(found)
            else:
                self.begin(name)
        except OpenElsewhere as error:
            self._begin_beside(name, {one.name for one in every})
            say(f"note: {error.message}: this one is called '{self.name}'")

    def _begin_beside(self, name: str, taken: set[str | None]) -> None:
        """Begin a conversation with the next free name."""
        for fresh in (f"{name}-{number}" for number in count(2)):
            if fresh not in taken:
                with suppress(OpenElsewhere):
                    self.begin(fresh)
                    break

    def add(self, question: str, result: Result) -> None:
        """Keep an exchange, and those before it that could not be stored.

        Raises:
            AlignBeamError: it could not be stored; it is in memory all the same.
        """
        self.exchanges.append(self._exchange(_NOT_STORED, question, result))
        self._store()

    def replace_last(self, question: str, result: Result) -> None:
        """Put another exchange in the last one's place; the last one is kept as an earlier answer of it.

        Raises:
            AlignBeamError: as `add`.
        """
        with suppress(AlignBeamError):  # to keep it as an earlier one the log must hold it; told below
            self._store()
        last = self.exchanges[-1]
        earlier = (*last.earlier, last._replace(earlier=()))
        self.exchanges[-1] = self._exchange(last.id, question, result)._replace(earlier=earlier)
        if last.id != _NOT_STORED:
            self._replaced.add(last.id)
        self._store()

    def drop_last(self) -> StoredExchange:
        """Forget the last exchange, and return it. Raises: AlignBeamError: it is still in the log."""
        last = self.exchanges.pop()
        self._replaced.discard(last.id)
        if last.id != _NOT_STORED:
            self._dropped.append(last.id)
        self._store()
        return last

    def rename(self, name: str) -> None:
        """Raises: UsageError: the name is taken or cannot be one, or nothing is kept."""
        log = self.require_log()
        with self._claiming(self.id, name):
            log.rename(self.id, name)
        self.name = name
        self._let_go_of_others()
        self._store()

    def require_log(self) -> ConversationLog:
        """Raises: UsageError: this chat has none."""
        if self.log is None:
            raise UsageError("this chat keeps nothing (--no-log)", "/export FILE writes it to a file.")
        self.refresh()
        return self.log

    @property
    def turns(self) -> list[Message]:
        """Questions and answers."""
        return [
            turn
            for exchange in self.exchanges
            for turn in (Message("user", exchange.question), Message("assistant", exchange.answer))
        ]

    @property
    def unread(self) -> set[int]:
        """Which of the turns, counted from 0, the models do not read again: those that were blocked."""
        blocked = [n for n, one in enumerate(self.exchanges) if one.result["finish_reason"] in REPLACED]
        return {turn for n in blocked for turn in (2 * n, 2 * n + 1)}

    @property
    def state_dir(self) -> Path | None:
        """Where the models' states of this conversation are kept."""
        return self.log.state_dir(self.id) if self.log else None

    @property
    def system(self) -> str | None:
        """The system prompt of the last answer."""
        return self.exchanges[-1].result["config"]["system"] if self.exchanges else None

    def exported(self) -> Exported:
        """All of it, as the log would give it."""
        last = self.exchanges[-1] if self.exchanges else None
        summary = StoredConversation(
            id=self.id,
            name=self.name,
            started=self.started,
            updated=last.asked if last else self.started,
            num_exchanges=len(self.exchanges),
            first_question=self.exchanges[0].question if last else None,
            draft=last.result["config"]["draft"] if last else None,
        )
        return Exported(summary, list(self.exchanges))

    def _store(self) -> None:
        """Bring to the log, in order, what is not in it. Raises: AlignBeamError: it can't be written."""
        self.refresh()
        if self.log is None:
            return
        while self._dropped:
            self.log.drop(self._dropped[0])
            self._dropped.pop(0)
        for index, exchange in enumerate(self.exchanges):
            if exchange.id == _NOT_STORED:
                stored = self.log.add(
                    self.id, exchange.question, exchange.result, name=self.name, asked=exchange.asked
                )
                self.exchanges[index] = exchange._replace(id=stored)
            elif exchange.id in self._replaced:
                self._write_replaced(self.log, exchange)

    def _write_replaced(self, log: ConversationLog, exchange: StoredExchange) -> None:
        self._replaced.discard(exchange.id)
        try:
            log.replace(exchange.id, exchange.question, exchange.result)
        except UsageError:  # somebody deleted it: it is not tried again
            raise
        except AlignBeamError:
            self._replaced.add(exchange.id)
            raise

    def refresh(self) -> None:
        """If the log's file was removed, go on in a new one, which this conversation is brought to.

        Raises:
            AlignBeamError: there can be no new one.
        """
        if self.log is None or not self.log.reopen_if_gone():
            return
        there = {(one.id, one.question) for one in self.log.exchanges(self.id)}
        self.exchanges = [
            one if (one.id, one.question) in there else one._replace(id=_NOT_STORED) for one in self.exchanges
        ]
        self._forget_unwritten()
        say(f"note: {self.log.path} was removed or replaced: this conversation goes on in the new one")

    def _exchange(self, stored: int, question: str, result: Result) -> StoredExchange:
        return StoredExchange(stored, self.id, now(), question, result.text, result.as_dict())


@contextmanager
def opened(*, is_kept: bool, name: str | None, continued: bool) -> Iterator[Transcript]:
    """The conversation to begin or to go on with.

    Raises:
        UsageError: the one asked for cannot be.
        AlignBeamError: the log cannot be read, and a conversation in it was asked for.
    """
    if name and continued:
        raise UsageError("--continue and --session exclude each other", "Give one of them.")
    log = _opened_log(is_wanted=bool(name or continued)) if is_kept else None
    if log is None:
        yield Transcript(None)
        return
    with log, closing(Transcript(log)) as transcript:
        if continued:
            _continue(transcript, _last(log))
        elif name:
            transcript.find_or_begin(name)
        yield transcript


def _continue(transcript: Transcript, last: StoredConversation) -> None:
    try:
        transcript.take_up(last)
    except OpenElsewhere as error:  # what was begun with the transcript stays: a new conversation
        say(f"note: {error.message}: a new one begins")


def _opened_log(*, is_wanted: bool) -> ConversationLog | None:
    try:
        return ConversationLog()
    except AlignBeamError as error:
        if is_wanted:
            raise
        say(f"note: this chat is not kept: {error.message}")
        return None


def _last(log: ConversationLog) -> StoredConversation:
    last = log.last()
    if last is None:
        raise UsageError("there is no conversation to go on with", "Leave --continue out to begin one.")
    return last
