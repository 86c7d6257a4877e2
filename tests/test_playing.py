"""Events that are shown to their end, or taken back; models that are pulled, or said to be missing."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from alignbeam_local.cli import playing, pulling
from alignbeam_local.cli.playing import play, stop_if_cancelled
from alignbeam_local.cli.pulling import needed_models, provide_models, pull_with_progress, require_models

from alignbeam_local.config import Config
from alignbeam_local.errors import Cancelled, ContextFull, ModelError, UsageError
from alignbeam_local.events import AnswerText, Done, Event, Withdrawn
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.message import Message

from .fake_engine import FakeEngine, fake_result
from .running import STARTER, touch_models

DONE = Done(fake_result("x", Config()))


class Recorder:
    """A view that notes what it is shown; it may fail at an event."""

    def __init__(self, fails_at: type | None = None) -> None:
        self.shown: list[Any] = []
        self._fails_at = fails_at

    def show(self, event: Event) -> None:
        if self._fails_at and isinstance(event, self._fails_at):
            self._fails_at = None
            raise BrokenPipeError
        self.shown.append(event)

    def close(self) -> None:
        self.shown.append("closed")


def engine() -> Any:
    return FakeEngine(Config())


# --- playing


def test_every_event_is_shown_and_the_last_one_is_the_result() -> None:
    view = Recorder()
    assert play(engine(), iter([AnswerText("x"), DONE]), view) is DONE.result
    assert view.shown == [AnswerText("x"), DONE, "closed"]


def test_a_stream_without_an_end_has_no_result() -> None:
    assert play(engine(), iter([AnswerText("x")]), Recorder()) is None


def test_one_that_was_stopped_before_its_result_is_cancelled() -> None:
    own = engine()

    def events() -> Iterator[Event]:
        own.cancellation.set()
        yield AnswerText("x")

    view = Recorder()
    with pytest.raises(Cancelled):
        play(own, events(), view)
    assert view.shown[-1] == "closed"


def test_an_answer_that_was_stopped_with_a_result_is_one() -> None:
    own = engine()

    def events() -> Iterator[Event]:
        own.cancellation.set()
        yield DONE

    assert play(own, events(), Recorder()) is DONE.result


@pytest.mark.parametrize("error", [ContextFull("full"), KeyboardInterrupt(), ZeroDivisionError()])
def test_an_error_of_the_stream_is_told_after_the_view_is_closed(error: BaseException) -> None:
    view = Recorder()

    def events() -> Iterator[Event]:
        yield AnswerText("x")
        raise error

    with pytest.raises(type(error)):
        play(engine(), events(), view)
    assert view.shown == [AnswerText("x"), "closed"]


def test_what_does_not_stand_is_taken_back_when_showing_fails() -> None:
    closed = []

    def events() -> Iterator[Event]:
        try:
            yield AnswerText("x")
            yield DONE
        except BrokenPipeError:
            yield Withdrawn("no")
            raise
        finally:
            closed.append(True)

    view = Recorder(fails_at=Done)
    with pytest.raises(BrokenPipeError):
        play(engine(), events(), view)
    assert view.shown == [AnswerText("x"), Withdrawn("no"), "closed"]
    assert closed == [True]


def test_the_first_error_is_the_one_that_is_told() -> None:
    def events() -> Iterator[Event]:
        try:
            yield DONE
        finally:
            raise ValueError("second")

    with pytest.raises(BrokenPipeError):
        play(engine(), events(), Recorder(fails_at=Done))


def test_events_that_are_no_generator_have_nothing_to_take_back() -> None:
    with pytest.raises(BrokenPipeError):
        play(engine(), iter([DONE]), Recorder(fails_at=Done))


def test_an_answer_is_its_result() -> None:
    view = Recorder()
    found = playing.answer(engine(), [Message("user", "echo: yes")], view)
    assert (found.text, view.shown[-2].result, view.shown[-1]) == ("yes", found, "closed")


@pytest.mark.parametrize("finish", ["stop", "length", "blocked", "withdrawn"])
def test_an_answer_that_ended_is_not_cancelled(finish: Any) -> None:
    stop_if_cancelled(fake_result("x", Config(), finish))


def test_one_that_was_cancelled_is() -> None:
    with pytest.raises(Cancelled):
        stop_if_cancelled(fake_result("x", Config(), "cancelled"))


# --- pulling


def config(**knobs: Any) -> Config:
    return Config.of({"draft": STARTER[1], "anchor": STARTER[0], "judge": STARTER[1], **knobs})


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], bool]]:
    """What is pulled, and whether offline; nothing comes."""
    found: list[tuple[list[str], bool]] = []

    def pull(registry: Registry, names: Sequence[str], offline: bool) -> None:
        found.append((list(names), offline))

    monkeypatch.setattr(pulling, "pull_with_progress", pull)
    return found


def test_models_are_needed_once_and_in_order() -> None:
    assert needed_models(config()) == [STARTER[1], STARTER[0]]
    assert needed_models(config(beams=1, depth=0)) == [STARTER[1]]
    with pytest.raises(UsageError, match="no judge model is named"):
        needed_models(config(judge=None))


def test_models_that_are_here_are_required_in_vain() -> None:
    touch_models()
    require_models(config(), Registry.load())


def test_one_that_is_not_is_an_error() -> None:
    with pytest.raises(ModelError, match="is not here yet"):
        require_models(config(), Registry.load())


def test_what_is_here_is_not_pulled(pulled: list[Any]) -> None:
    touch_models()
    provide_models(Registry.load(), STARTER, pull=True, offline=False)
    assert pulled == []


@pytest.mark.parametrize("offline", [False, True])
def test_what_is_missing_is_pulled_if_the_user_says_so(pulled: list[Any], offline: bool) -> None:
    with pytest.raises(ModelError, match="is not here yet"):  # nothing came
        provide_models(Registry.load(), STARTER, pull=True, offline=offline)
    assert pulled == [(list(STARTER), offline)]


def test_without_a_person_nothing_is_asked_and_the_hint_says_what_to_add(pulled: list[Any]) -> None:
    with pytest.raises(ModelError) as caught:
        provide_models(Registry.load(), STARTER, pull=False, offline=False)
    assert caught.value.hint.endswith(", or add --pull to this command")
    assert pulled == []


def test_a_file_that_is_not_there_can_not_be_pulled(pulled: list[Any]) -> None:
    with pytest.raises(ModelError) as caught:
        provide_models(Registry.load(), ["./no.gguf"], pull=True, offline=False)
    assert "--pull" not in caught.value.hint
    assert pulled == []


@pytest.mark.parametrize(
    ("says_yes", "offline", "asked"), [(True, False, 1), (False, False, 1), (True, True, 0)]
)
def test_a_person_is_asked_once_and_never_offline(
    pulled: list[Any], monkeypatch: pytest.MonkeyPatch, says_yes: bool, offline: bool, asked: int
) -> None:
    questions: list[str] = []

    def confirm(question: str, *, default: bool, err: bool) -> bool:
        assert (default, err) == (False, True)
        questions.append(question)
        return says_yes

    monkeypatch.setattr(pulling, "is_terminal", lambda _: True)
    monkeypatch.setattr(pulling.typer, "confirm", confirm)
    with pytest.raises(ModelError):
        provide_models(Registry.load(), STARTER, pull=False, offline=offline)
    assert len(questions) == asked
    assert all(name in question for question in questions for name in STARTER)
    assert bool(pulled) == (says_yes and bool(asked))


def test_a_name_that_comes_from_nowhere_is_a_usage_error_before_anything_is_pulled() -> None:
    with pytest.raises(UsageError) as caught:
        pull_with_progress(Registry.load(), [STARTER[0], "./no.gguf"], True)
    assert caught.value.message == "there is no source to pull './no.gguf' from"
    assert "alignbeam models list" in caught.value.hint
