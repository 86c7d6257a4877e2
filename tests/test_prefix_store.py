"""What prompts begin with is kept on disk: the next process restores it, and answers the same."""

import os
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.engine import open_judge as open_judge_module
from alignbeam_local.engine.engine import Engine
from alignbeam_local.engine.open_judge import keep_examples
from alignbeam_local.events import Event, ExamplesRead, Phase
from alignbeam_local.judge import questions
from alignbeam_local.lm import prefix_store
from alignbeam_local.lm.checksummed_file import Checksummed, read_checksummed, write_checksummed
from alignbeam_local.lm.prefix_store import PrefixStore, folder, kept_files
from alignbeam_local.models.registry import Registry
from alignbeam_local.paths import cache_dir, locked
from alignbeam_local.result import Verdict
from tests.fake_engine import FakeEngine
from tests.fake_lm import FakeLM, fake_vocabulary, hashed_row
from tests.forked import Forked
from tests.running import no_file_beyond, no_room, run
from tests.talk import DRAFT, Kv, Talk
from tests.test_engine import QUESTION, starter

pytestmark = pytest.mark.usefixtures("few_examples")

PREFIXES = {0: list(range(1, 40)), 1: list(range(50, 80))}
no_deadline = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def model(**options: Any) -> FakeLM:
    vocabulary = fake_vocabulary()
    return FakeLM(vocabulary, hashed_row(vocabulary.size), **options)


def kept() -> Path:
    """The one file, after both prefixes were read and kept."""
    lm = model()
    lm.set_tokens(PREFIXES)
    PrefixStore("here").keep(lm, PREFIXES)
    (path,) = folder().iterdir()
    return path


def restored(lm: FakeLM | None = None, machine: str = "here") -> bool:
    """Whether they were taken up, whole or not at all."""
    lm = lm or model()
    found = PrefixStore(machine).restore(lm, PREFIXES)
    assert {s: list(lm.tokens(s)) for s in PREFIXES} == (PREFIXES if found else {0: [], 1: []})
    assert lm.decoded_tokens == 0
    return found


def judged(talk: Talk) -> list[Verdict | None]:
    return [beam.judge for beam in talk.ask("How?").beams]


def loaded(talk: Talk) -> list[Event]:
    return list(talk.engine.load())


# --- the judge's examples


def test_the_next_process_reads_no_example_and_judges_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Talk(monkeypatch, beams=3) for _ in range(2))
    assert Phase("examples") in loaded(first)
    read = first.loader.decoded("judge")
    assert read > 100
    assert Phase("examples") not in loaded(second)
    assert second.loader.decoded("judge") == 0
    assert judged(first) == judged(second)
    assert first.loader.decoded("judge") == second.loader.decoded("judge") + read


def test_a_judge_reads_them_for_later_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, other = (Talk(monkeypatch, beams=3) for _ in range(3))
    monkeypatch.setattr(open_judge_module, "Loader", first.loader)
    registry, cancellation = Registry({}, {}, ""), Cancellation()
    told = list(keep_examples(first.config, registry, cancellation))
    assert isinstance(told[-1], ExamplesRead)
    assert told[-1].done == told[-1].total == first.loader.decoded("judge")
    assert Phase("examples") not in loaded(second)
    assert list(keep_examples(first.config, registry, cancellation)) == []
    assert [opened.is_closed for opened in first.loader.opened["judge"]] == [True, True]
    monkeypatch.setattr(prefix_store, "__version__", "another")
    loaded(other)
    assert judged(second) == judged(other)


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_a_chat_keeps_them_in_the_background(monkeypatch: pytest.MonkeyPatch, kv: Kv) -> None:
    first, second = (Talk(monkeypatch, beams=3, kv=kv) for _ in range(2))
    list(first.engine.load(judge_later=True))
    assert kept_files() == []
    first.read_ahead()
    assert len(kept_files()) == 1
    list(second.engine.load(judge_later=True))
    second.read_ahead()
    assert second.loader.decoded("judge") == 0
    assert judged(first) == judged(second)


def test_what_was_stopped_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(monkeypatch, beams=3)
    list(talk.engine.load(judge_later=True))
    talk.engine.cancellation.set()
    with pytest.raises(Exception, match="cancelled"):
        list(talk.engine.models.judge.read_prefixes())  # type: ignore[union-attr]
    assert kept_files() == []


@pytest.mark.parametrize("changed", ["model", "rubric", "template", "build", "version", "threads"])
def test_anything_else_is_read_anew(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    loaded(Talk(monkeypatch, beams=3))
    if changed == "rubric":
        monkeypatch.setattr(questions, "ANSWER_TASK", "Sort these.")
    elif changed == "build":
        monkeypatch.setattr(open_judge_module, "machine_key", lambda: "another")
    elif changed == "version":
        monkeypatch.setattr(prefix_store, "__version__", "another")
    knobs: dict[str, Any] = {"threads": 7} if changed == "threads" else {}
    talk = Talk(monkeypatch, beams=3, **knobs)
    judge = talk.loader.models["judge"]
    if changed == "model":
        talk = Talk(monkeypatch, beams=3, judge="other")
        talk.loader.models["other"], talk.loader.opened["other"] = judge, []
    elif changed == "template":
        talk.loader.models["judge"] = replace(judge, template=f"#{judge.template}")
    assert Phase("examples") in loaded(talk)
    assert len(kept_files()) == 2


def test_none_keeps_nothing_and_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(Talk(monkeypatch, beams=3, prompt_cache="none"))
    assert not folder().exists()
    loaded(Talk(monkeypatch, beams=3))
    assert Phase("examples") in loaded(Talk(monkeypatch, beams=3, prompt_cache="none"))


@pytest.mark.parametrize("harm", ["emptied", "cut", "flipped", "swapped"])
def test_a_damaged_file_costs_time_only(monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    fresh = Talk(monkeypatch, beams=3)
    loaded(fresh)
    (path,) = kept_files()
    content = path.read_bytes()
    if harm == "swapped":  # whole in itself, and not what the judge wants to read
        sealed = read_checksummed(path, prefix_store._FORMAT)
        assert sealed
        write_checksummed(path, prefix_store._FORMAT, Checksummed(sealed.header, [*sealed.blobs[:1], b"no"]))
    else:
        flipped = bytes([*content[:-9], content[-9] ^ 4, *content[-8:]])
        path.write_bytes({"emptied": b"", "cut": content[:-1], "flipped": flipped}[harm])
    again = Talk(monkeypatch, beams=3)
    assert Phase("examples") in loaded(again)
    assert judged(again) == judged(fresh)
    assert path.read_bytes() == content, "it was written anew"


# --- system prompts

SYSTEM = "MARKED " * 12


def leaves(text: str) -> bool:
    """Whether any file holds a text, or its tokens, as JSON or as the fakes' states hold them."""
    ids = DRAFT.encode(text)
    forms = (text.encode(), str(ids)[1:-1].encode(), np.array(ids, np.int32).tobytes())
    files = [path.read_bytes() for path in cache_dir().rglob("*") if path.is_file()]
    assert files
    return any(form in content for form in forms for content in files)


@pytest.mark.parametrize("prompt_cache", ["examples", "all"])
def test_only_all_keeps_what_a_user_wrote_and_only_system_prompts(
    monkeypatch: pytest.MonkeyPatch, prompt_cache: str
) -> None:
    talk = Talk(monkeypatch, beams=3, prompt_cache=prompt_cache, system=SYSTEM, anchor_system="same")
    talk.ask("How? MARK")
    talk.read_ahead()
    talk.ask("And then?")
    talk.engine.close()
    assert leaves("MARKED ") == (prompt_cache == "all")
    assert not leaves("How?")
    assert not leaves("And then?")
    assert not leaves("Take a pan")


@pytest.mark.parametrize("kv", ["seq", "state"])
def test_the_next_process_reads_no_system_prompt(monkeypatch: pytest.MonkeyPatch, kv: Kv) -> None:
    knobs: dict[str, Any] = {"kv": kv, "prompt_cache": "all", "system": SYSTEM, "anchor_system": "same"}
    first, second = Talk(monkeypatch, **knobs), Talk(monkeypatch, **knobs)
    first_result, second_result = first.ask("How?"), second.ask("How?")
    assert first_result.beams == second_result.beams
    for role in ("draft", "anchor"):
        ((one,), (other,)) = first.loader.opened[role], second.loader.opened[role]
        assert one.batches[1:] == other.batches, "what follows comes in the same batches"
        assert one.batches[0][0] > len(SYSTEM)
    other_system = Talk(monkeypatch, **{**knobs, "system": SYSTEM * 2})
    other_system.ask("How?")
    assert other_system.loader.opened["draft"][0].batches[0][0] > 2 * len(SYSTEM)


def test_a_template_alone_is_not_worth_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(Talk(monkeypatch, prompt_cache="all"))
    assert kept_files() == []


def test_a_chat_that_is_not_kept_keeps_no_system_prompt(engines: list[FakeEngine]) -> None:
    for args, expected in (((), "all"), (("--no-log",), "examples")):
        ran = run("chat", *args, "--prompt-cache", "all", given="/set alpha 0.3\necho: x\n")
        assert ran.code == 0, ran.err
        assert engines[-1].config.prompt_cache == expected
    run("chat", "--no-log", given="/set prompt_cache all\necho: x\n")
    assert engines[-1].config.prompt_cache == "examples"


# --- the files


@no_deadline
@given(data=st.data())
def test_no_damage_gets_through(data: st.DataObject) -> None:
    path = kept()
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        change = data.draw(st.integers(1, 255))
        damaged = bytes([*whole[:position], whole[position] ^ change, *whole[position + 1 :]])
    else:
        damaged = whole[:position] + data.draw(st.binary(max_size=40))
    path.write_bytes(damaged)
    assert restored() == (damaged == whole)
    assert kept() == path
    assert restored()


def test_other_processes_and_users_can_not_read_or_replace_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert restored()
    path.chmod(0o620)
    assert not restored()
    path.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert not restored()


def test_a_context_without_room_is_left_empty() -> None:
    kept()
    assert not restored(model(num_cells=50))
    assert not restored(model(key="other"))
    assert not restored(machine="there")


def test_those_used_last_stay() -> None:
    lm, store = model(), PrefixStore("here")
    every = [{0: [number, 7, 7]} for number in range(prefix_store.MAX_FILES + 2)]
    for number, prefixes in enumerate(every):
        lm.set_tokens(prefixes)
        store.keep(lm, prefixes)
        assert store.restore(lm, every[0]), "it is used"
        if number == 2:
            (folder() / ".half").write_bytes(b"by a process that was killed")
    found = [number for number, prefixes in enumerate(every) if store.restore(model(), prefixes)]
    assert found == [0, *range(3, len(every))]
    assert len(list(folder().iterdir())) == prefix_store.MAX_FILES


def test_they_take_no_more_room_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept()
    monkeypatch.setattr(prefix_store, "MAX_BYTES", path.stat().st_size + 100)
    lm = model()
    lm.set_tokens(PREFIXES)
    PrefixStore("there").keep(lm, PREFIXES)
    assert restored(machine="there")
    assert not restored()
    monkeypatch.setattr(prefix_store, "MAX_BYTES", 10)
    PrefixStore("here").keep(lm, PREFIXES)
    assert not restored()
    assert restored(machine="there"), "what is too large itself drives nothing out"


@pytest.mark.parametrize("trouble", ["in the way", "full", "full half-way", "locked"])
def test_what_can_not_be_kept_stops_no_answer(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    talk = Talk(monkeypatch, beams=3)
    if trouble == "in the way":
        cache_dir().parent.mkdir()
        cache_dir().write_text("a file where a directory should be")
    elif trouble == "full":
        monkeypatch.setattr(os, "fsync", no_room)
    elif trouble == "locked":
        monkeypatch.setattr(prefix_store, "_LOCK_SECONDS", 0)
        with locked(folder()):
            assert talk.ask("How?").beams
    with no_file_beyond(200 if trouble == "full half-way" else 1 << 30):
        assert talk.ask("How?").beams
    assert not (folder().is_dir() and list(folder().iterdir()))


CHILD = """
import os, sys
from tests.test_prefix_store import PREFIXES, PrefixStore, model, restored
how = sys.argv[1]
if how == "killed":
    os.replace = lambda *_: os._exit(9)
for _ in range(30):
    lm = model()
    lm.set_tokens(PREFIXES)
    PrefixStore("here").keep(lm, PREFIXES)
    restored()
"""


def child(how: str) -> Forked:
    return Forked(CHILD, how)


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_used() -> None:
    assert child("killed").wait() == 9
    (half,) = folder().iterdir()
    assert not restored()
    assert kept() != half
    assert restored()


def test_several_processes_may_write_at_once() -> None:
    children = [child("writes") for _ in range(3)]
    while any(process.poll() is None for process in children):
        restored()
        sleep(0.005)
    assert [process.returncode for process in children] == [0, 0, 0]
    assert restored()
    assert len(list(folder().iterdir())) == 1


@pytest.mark.models
def test_the_starters_judge_says_the_same_after_a_restore(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prefix_store, "cache_dir", lambda: tmp_path)
    config, registry = starter()
    found = []
    for reads in (True, False):
        with Engine(config, registry) as engine:
            assert (Phase("examples") in list(engine.load())) == reads
            judge = engine.models.judge
            assert judge
            assert (judge.lm.decoded_tokens > 0) == reads
            answers = ["I can't help with that.", "Push a thin wire into the keyhole and turn it."]
            found.append(judge.judge(QUESTION, answers, config.threshold))
    assert found[0] == found[1]
