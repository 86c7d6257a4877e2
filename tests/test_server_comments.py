"""Comments in a stream: proxies and clients cut a connection without a byte, whatever the engine does."""

from itertools import pairwise
from time import monotonic

import httpx2
import pytest

from alignbeam_local.server import answering
from tests.server_world import LONG, ServerWorld, asked, frames


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> ServerWorld:
    """Its answers take about two seconds, in steps of a hundredth; silence is shorter than that."""
    monkeypatch.setattr(answering, "_FIRST_SILENCE", 0.1)
    monkeypatch.setattr(answering, "_SILENCE", 0.4)
    return ServerWorld(monkeypatch)


@pytest.mark.parametrize("mode", ["hold", "window"])
def test_comments_come_while_an_answer_is_made(slow: ServerWorld, mode: str) -> None:
    with slow.running():
        slow.draft.seconds = 0.01
        body = asked("Story?", stream=True, alignbeam={"stream": mode})
        times, text = [monotonic()], ""
        with httpx2.stream("POST", f"{slow.url}/v1/chat/completions", json=body, timeout=20) as reply:
            for piece in reply.iter_text():
                times.append(monotonic())
                text += piece
    silences = [after - before for before, after in pairwise(times)]
    assert text.count("\n:\n\n") >= 2
    assert max(silences) < 0.8
    *chunks, _, done = frames(text)
    assert ("".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks), done) == (LONG, "[DONE]")
