"""No byte of an answer is sent before a verdict has passed a text that holds it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from alignbeam_local.result import Verdict
from tests.guarded_streams import Stream, found
from tests.server_world import LONG, ServerWorld, SlowLM, asked
from tests.test_steering import HEAD


def test_no_byte_comes_before_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, faults = found(monkeypatch, 60, seed=7)
    assert faults == []
    outcomes = Counter(stream.outcome for stream in streams)
    assert outcomes["answered"] > 10
    assert outcomes["no end"] == 0
    assert all(outcomes[name] for name in ("blocked", "withdrawn", "left", "failed"))


@pytest.mark.parametrize("late", ["judge", "window"])
def test_none_comes_where_answers_are_read_on_and_put_back(
    late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, faults = found(monkeypatch, 40, seed=9, late=late, late_every=24)
    assert faults == []
    outcomes = Counter(stream.outcome for stream in streams)
    assert outcomes["answered"] > 5
    assert outcomes["no end"] == 0
    assert outcomes["withdrawn"]


def test_bytes_that_come_too_early_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _, faults = found(monkeypatch, 10, seed=8, mode="open", allows_knobs=True)
    assert faults


@pytest.mark.parametrize("is_known", [True, False])
def test_what_no_answer_could_make_unsafe_is_sent_as_it_is_made(
    is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `hold` mode, else the whole answer at once."""
    monkeypatch.setattr("alignbeam_local.engine.engine.REQUEST_HEADS.find", lambda *_: HEAD)
    monkeypatch.setattr(SlowLM, "seconds", 0.002)
    world = ServerWorld(monkeypatch, steer="by_request")
    clear = np.array([-4.0, 1.0], np.float32)
    world.loader.models["anchor"] = replace(world.loader.models["anchor"], hidden=lambda _: clear)
    safe = Verdict(1.2, 1.2, {}, "safe", request=0.1, unread=True)
    monkeypatch.setattr(world.judge, "worst", lambda *_: safe if is_known else None)
    stream = Stream("Story?", {"stream": True}, None)
    with world.running():
        stream.run(world)
    assert stream.content == LONG[: len(stream.content)]
    assert len(stream.content) > 100
    assert (len(stream.pieces) > 3) == is_known


def test_an_answer_that_was_refused_for_its_request_is_not_told_beside_the_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The judge passes all drafts; the head reads the request as harmful, and none of them refuses."""
    monkeypatch.setattr("alignbeam_local.engine.engine.REQUEST_HEADS.find", lambda *_: HEAD)
    world = ServerWorld(monkeypatch, choice="by_request", score_by="judge")
    harmful = np.array([4.0, 1.0], np.float32)
    world.loader.models["anchor"] = replace(world.loader.models["anchor"], hidden=lambda _: harmful)
    with world.running():
        blocked = world.post(asked("Story?", alignbeam={"include": ["beams.text", "steps"]})).json()
        refused = world.post(asked("How?", alignbeam={"include": ["beams.text"]})).json()
    message = blocked["choices"][0]["message"]
    assert message["refusal"] == "Blocked: the request was read as harmful, and no draft refuses it."
    assert {beam["verdict"] for beam in blocked["alignbeam"]["beams"]} == {"safe"}
    assert [beam["text"] for beam in blocked["alignbeam"]["beams"]] == [None] * 3
    own = refused["alignbeam"]
    assert (own["outcome"], own["by"]) == ("refused", "mix")
    assert [beam["text"] for beam in own["beams"]] == [None, None, "I can't help with that."]
