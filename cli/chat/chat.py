"""A conversation in the terminal: its knobs, what is shown and kept of it."""

import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from alignbeam_local.config import Config
from alignbeam_local.conversation.conversation import Conversation, Exchange
from alignbeam_local.engine.engine import Engine, changed_loading_knobs
from alignbeam_local.errors import AlignBeamError, Cancelled, UsageError
from alignbeam_local.events import Event, Step
from alignbeam_local.lm.grammar import grammar_of
from alignbeam_local.result import Result
from alignbeam_local.settings import DEFAULT, SourcedConfig, SourcedValue

from .. import playing, session
from ..console.terminal import is_dumb, is_terminal, printable, say, say_error, unechoed
from ..inputs import checked
from ..line.input import LineReader
from ..pulling import require_models
from ..views.answer_view import answer_view
from ..views.live import LiveView
from ..views.view import RecordingView, View
from .defaults import for_chat
from .greeting import greeting, short_name
from .talk import LAST, read_again
from .transcript import Transcript

#: The source of a system prompt that came with a conversation.
_ADOPTED = "session"
_NO_SYSTEM = SourcedValue(None, DEFAULT, explicit=False)


class Chat:
    """A conversation, the knobs of its next answer, and where both are shown."""

    reader: LineReader  # set when the loop begins

    def __init__(
        self, engine: Engine, prepared: session.Session, transcript: Transcript, *, keeps_state: bool
    ) -> None:
        self.settings = prepared.settings
        self.registry = prepared.registry
        self.transcript = transcript
        self.conversation = Conversation(engine)
        self.console = Console(highlight=False)
        self._steps: list[list[Step]] = []  # of each answer of this run that stands
        self.attached: list[str] = []  # files that go before the next question
        self.traces = prepared.options.trace and self.is_live
        self._engine = engine
        self._options = prepared.options
        self._keeps_state = keeps_state
        self._told_unjudged = False
        self._configured_system = _NO_SYSTEM  # what an adopted system prompt stands in for
        self.num_failed = 0  # messages and commands that came to an error

    def start(self) -> None:
        """Load the models, and take up what there is to go on with."""
        with unechoed():
            self.play(self._engine.load(judge_later=True))
            self._greet()
        self.take_up()

    def _greet(self) -> None:
        """Tell a person what this is; a script and who wants quiet hear nothing."""
        talks = is_terminal(sys.stdin) and is_terminal(sys.stdout)
        if not talks or self._options.json or self._options.quiet:
            return
        engine = self._engine
        lines = greeting(
            self.settings, reads_examples=engine.has_examples_to_read, is_remote=engine.is_remote
        )
        for line in lines:
            self.console.print(Text(printable(line), style="dim"))

    def fail(self, error: AlignBeamError) -> None:
        """Say what went wrong; the chat goes on."""
        self.num_failed += 1
        say_error(error.message, error.hint)

    # --- answers

    def ask(self, text: str) -> None:
        """Answer a question.

        Raises:
            Cancelled: the user stopped it, and nothing of it stays.
            AlignBeamError: as `Conversation.ask`; or the answer is there, but could not be stored.
        """
        self._tell_unjudged()
        question = "\n\n".join([*self.attached, checked(text, "the prompt")])
        stopped = "stopped: question and answer are not kept; Up brings the question back"
        exchange, steps = self._answer(self.conversation.ask(question, self.settings.config), stopped)
        self.attached = []
        self._steps.append(steps)
        self._kept(lambda: self.transcript.add(exchange.question, exchange.result))

    def retry(self, config: Config, text: str | None = None) -> None:
        """Answer the last question again, or this one in its place, with these knobs; raises as `ask`."""
        question = text and checked(text, "the prompt")
        stopped = "stopped: the question and the answer before stay"
        exchange, steps = self._answer(self.conversation.retry(config, question), stopped)
        self._steps[-1:] = [steps]
        self._kept(lambda: self.transcript.replace_last(exchange.question, exchange.result))

    def undone(self) -> None:
        """The last answer is none any more: what explains the one before it holds."""
        self._steps[-1:] = []

    @property
    def steps(self) -> Sequence[Step]:
        """The mixed steps of the last answer; none of one that was kept before this chat began."""
        return self._steps[-1] if self._steps else ()

    def _answer(self, events: Iterator[Event], stopped: str) -> tuple[Exchange, list[Step]]:
        """Show an answer in the making. Raises: Cancelled: the user stopped it, which `stopped` says."""
        before = self.conversation.last
        view = RecordingView(self._view())
        self.play(events, view)
        last = self.conversation.last
        if last is None or last is before:
            raise Cancelled(stopped)
        return last, view.steps

    def _kept(self, keep: Callable[[], None]) -> None:
        """Keep an answer, then go on from it. Raises: as `ask`."""
        try:
            keep()
        finally:
            if self.traces:
                self.tell_candidates()
            self.conversation.read_ahead(self.settings.config)

    def tell_candidates(self, which: str = "") -> None:
        """Show the candidates of each mixed token of the last answer, of one beam or of all.

        Raises:
            UsageError: there is no answer of this run, or no such beam.
        """
        from ..views.why import candidates

        self.tell(candidates(self.last_result, self.steps, self.console.width, which))

    @property
    def last_result(self) -> Result:
        """Raises: UsageError: there is no answer of this run."""
        if self.conversation.last is None:
            raise UsageError("there is no answer to explain yet", "Ask something, or /retry.")
        return self.conversation.last.result

    def tell(self, what: str | RenderableType) -> None:
        """Print what was asked for; nothing in a text is markup, and only a terminal wraps it."""
        shown = Text(printable(what)) if isinstance(what, str) else what
        self.console.print(shown, soft_wrap=isinstance(shown, Text) and not self.console.is_terminal)

    def play(self, events: Iterator[Event], view: View | None = None) -> None:
        """Show events to their end; Ctrl-C stops the models, not the chat."""
        playing.play(self._engine, events, view or self._view())

    def _view(self) -> View:
        options = self._options
        if options.json or options.quiet or not self.is_live:
            return answer_view(options)
        return LiveView(self.console)

    @property
    def is_live(self) -> bool:
        """Whether a person reads on a screen that can be redrawn."""
        return is_terminal(sys.stdin) and is_terminal(sys.stdout) and not is_dumb()

    # --- knobs

    def change(self, settings: SourcedConfig) -> None:
        """Use other knobs from the next answer on; other models are loaded at once.

        Raises:
            UsageError: a grammar or a schema that is none; nothing is changed.
            UsageError, ModelError: the models can't be had; the chat then goes on with those it has.
        """
        settings = for_chat(settings, is_kept=self.transcript.log is not None)
        new = settings.config
        if grammar := grammar_of(new):
            from alignbeam_local.llama.grammar import check_grammar

            check_grammar(grammar)
        if any(changed_loading_knobs(self.settings.config, new)):
            require_models(new, self.registry)
            self.play(self.conversation.change_models(new))
        self.settings = settings
        session.tell_notices(settings)

    def toolbar(self) -> str:
        """The knobs that steer the next answer, the most telling first."""
        config = self.settings.config
        judged = "judged" if config.judged else "unjudged"
        roles = (config.draft, *(config.anchor_names if config.depth else ()))
        knobs = f" K={config.beams} N={config.depth} alpha={config.alpha:g} · {judged}"
        whole = f"{knobs} · {' ← '.join(short_name(model) for model in roles if model)}"
        return whole if len(whole) <= self.console.width else knobs

    # --- conversations

    def take_up(self) -> None:
        """Talk on where the transcript stands, with the state kept beside it."""
        self.conversation = Conversation(self._engine, self.transcript.turns, unread=self.transcript.unread)
        self._steps = []
        self._take_up_system()
        if self.transcript.exchanges:
            if folder := self.transcript.state_dir:
                self.conversation.load_state(folder)
            name = self.transcript.name or self.transcript.id
            say(f"going on with {name}: {num_answers(len(self.transcript.exchanges))} so far")
            if is_terminal(sys.stdout):
                self.tell(read_again(self.transcript.exchanges[-LAST:]))
        self.conversation.read_ahead(self.settings.config)

    def _take_up_system(self) -> None:
        """The conversation's system prompt, unless the user gave another; of a new one the configured one."""
        before = self.settings.given.get("system", _NO_SYSTEM)
        is_adopted = before.source == _ADOPTED
        if not self.transcript.exchanges:
            if is_adopted:
                self.change(self.settings.with_value("system", self._configured_system))
            return
        if before.explicit and not is_adopted:
            return
        if not is_adopted:
            self._configured_system = before
        if self.transcript.system != before.value:
            self.change(self.settings.override({"system": self.transcript.system}, _ADOPTED))

    def put_down(self) -> None:
        """Leave the conversation: keep the models' state of it, if that is wanted; Ctrl-C keeps less."""
        folder = self.transcript.state_dir
        try:
            if folder and self._keeps_state and self.transcript.exchanges:
                with self._engine.cancellation.on_interrupt():
                    self.conversation.save_state(folder)
            elif folder:
                self.conversation.forget_state(folder)
        except (AlignBeamError, OSError) as error:
            say(f"note: the models' state is not kept: {error}")
        self.conversation.close()

    def _tell_unjudged(self) -> None:
        if not self.settings.config.judged and not self._told_unjudged:
            self._told_unjudged = True
            say("note: with one beam answers are not judged; /set K 3 or /set on_unsafe refuse changes that")


def num_answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count} answers"
