"""What models hold of a conversation, kept and taken up again."""

from pathlib import Path

import pytest

from alignbeam_local.conversation.conversation import Conversation
from alignbeam_local.conversation.saved_state import read_state
from alignbeam_local.errors import AlignBeamError
from alignbeam_local.events import Notice
from tests.fake_lm import spelt
from tests.running import no_file_beyond
from tests.talk import ANCHOR, BEGIN, DRAFT, LONG, Kv, Talk
from tests.templates import CHATML, QWEN3

pytestmark = pytest.mark.usefixtures("few_examples")


@pytest.mark.parametrize("template", [CHATML, QWEN3])
@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_resumed_conversation_reads_only_the_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kv: Kv, template: str
) -> None:
    talk = Talk(monkeypatch, kv=kv, template=template)
    talk.ask("How?")
    talk.ask("And then?")
    talk.conversation.save_state(tmp_path / "kept")
    talk.engine.close()

    again = Talk(monkeypatch, *talk.conversation.messages, kv=kv, template=template)
    assert again.conversation.load_state(tmp_path / "kept")
    counts = again.prefilled()
    assert again.retry().text == "Wait."
    assert (counts.of("draft"), counts.of("anchor")) == (0, 0)
    again.conversation.load_state(tmp_path / "kept")
    again.ask("Why?")
    opening = len("<think>\n\n</think>\n\n") if template == QWEN3 else 0
    assert counts.of("draft") == len(DRAFT.encode_template(f"Why?{BEGIN}")) + opening
    assert counts.of("anchor") == len(ANCHOR.encode_template(f"Why?{BEGIN}"))


def test_a_resumed_conversation_leaves_out_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    talk = Talk(monkeypatch, script=LONG)
    for n in range(14):
        talk.ask(f"{'long ' * 12}{n}?")
    talk.conversation.save_state(tmp_path)
    again = Talk(monkeypatch, *talk.conversation.messages, script=LONG)
    assert again.conversation.load_state(tmp_path)
    assert not any(isinstance(event, Notice) for event in again.conversation.ask("1?", again.config))
    assert again.loader.prefilled("draft") == len(DRAFT.encode_template(f"1?{BEGIN}"))


def test_what_was_undone_is_in_no_kept_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.ask("And then?")
    talk.conversation.undo()
    talk.conversation.save_state(tmp_path)
    (file,) = tmp_path.iterdir()
    kept = read_state(file)
    assert kept is not None
    for saved in kept.snapshot.prompts:
        assert saved is not None
        tokens = [*saved.prompt, *(token for state in saved.states for token in state.tokens)]
        assert b"And then" not in spelt(DRAFT, tokens)
    again = Talk(monkeypatch, *talk.conversation.messages)
    again.conversation.save_state(tmp_path)
    assert again.conversation.load_state(tmp_path)
    again.conversation.undo()
    again.conversation.save_state(tmp_path)
    assert not file.exists()


def test_what_the_anchor_holds_of_another_conversation_is_in_no_kept_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.conversation.clear()
    talk.ask("Why?", depth=0)
    talk.conversation.save_state(tmp_path)
    (file,) = tmp_path.iterdir()
    kept = read_state(file)
    assert kept is not None
    assert [saved is None for saved in kept.snapshot.prompts] == [False, True]


def test_a_state_of_other_models_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    talk.conversation.save_state(tmp_path)
    again = Talk(monkeypatch, *talk.conversation.messages, draft="other")
    again.loader.models["other"] = again.loader.models["draft"]
    again.loader.opened["other"] = []
    assert not again.conversation.load_state(tmp_path)
    assert again.ask("Why?").text == "Rice is good."


@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "flipped", "version"])
def test_a_damaged_state_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, harm: str) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    with monkeypatch.context() as patch:
        if harm == "version":
            patch.setattr("alignbeam_local.conversation.saved_state._FORMAT", "another")
        talk.conversation.save_state(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    content = bytearray(file.read_bytes())
    if harm == "missing":
        file.unlink()
    elif harm in ("empty", "cut"):
        file.write_bytes(content[: len(content) // 2 if harm == "cut" else 0])
    elif harm == "flipped":
        content[-3] ^= 1
        file.write_bytes(content)
    again = Talk(monkeypatch, *talk.conversation.messages)
    assert not again.conversation.load_state(tmp_path)
    assert again.ask("Why?").text == "Rice is good."
    (tmp_path / ".kv-state.killed").write_bytes(content)
    again.conversation.save_state(tmp_path)
    assert list(tmp_path.iterdir()) == [file], "nothing is left of a process that was killed"
    assert Conversation(again.engine, again.conversation.messages).load_state(tmp_path)


def test_a_state_that_can_not_be_written_is_an_error_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    talk = Talk(monkeypatch)
    talk.ask("How?")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AlignBeamError, match="can't be kept"):
        talk.conversation.save_state(tmp_path / "file" / "folder")
    with no_file_beyond(100), pytest.raises(AlignBeamError, match="can't be kept"):
        talk.conversation.save_state(tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []


def test_without_an_answer_there_is_no_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Talk(monkeypatch).conversation.save_state(tmp_path)
    assert not list(tmp_path.iterdir())
