"""A server on a real port over models without weights, and clients of it."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from alignbeam_local.config import Config
from alignbeam_local.errors import ModelError
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.models.entry import ModelEntry
from alignbeam_local.models.registry import Registry
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Verdict
from alignbeam_local.server import serving
from alignbeam_local.server.app import Limits, Server
from alignbeam_local.server.gate import LOOPBACK, GateRules
from alignbeam_local.server.private import PrivateServer
from alignbeam_local.server.served import ServedModel, as_served
from alignbeam_local.server.serving import bound
from alignbeam_local.server.work.engine_thread import EngineThread
from alignbeam_local.server.work.pair import Pair
from alignbeam_local.warm.found_server import stamp_of
from alignbeam_local.warm.sockets import private_socket
from tests.fake_lm import FakeLM, Row, fake_vocabulary, scripted_row
from tests.fake_loader import FakeLoader, FakeModel, fake_engine

DRAFT = fake_vocabulary("user", "assistant", "system", "sorry")
ANCHOR = fake_vocabulary("assistant", "sorry")
BEGIN = "<|im_end|>\n<|im_start|>assistant\n"
LONG = "It is a long story that goes on and on, and nobody knows its end but the one who tells it. " * 2
SCRIPT: dict[str, str | list[str]] = {
    f"How?{BEGIN}": ["Take a pan.", "Use a pot.", "I can't help with that."],
    f"Harm?{BEGIN}": ["Take a knife.", "Use a knife.", "Buy a knife."],
    f"Late?{BEGIN}": [LONG + "Then a knife came.", LONG[3:] + "A knife too.", LONG[5:] + "No knife."],
    f"Story?{BEGIN}": [LONG, LONG[3:], LONG[5:]],
    f"Refuse?{BEGIN}": ["I can't help with that.", "I cannot help with that.", "I won't help with that."],
    f"Markup?{BEGIN}": ["<b>bold</b> & <script>alert(1)</script>", "<i>it</i>", "& so on"],
}
LIMITS = Limits()
#: Where the models would be if they were files.
REGISTRY = Registry(
    {name: ModelEntry(path=Path(f"/models/{name}.gguf")) for name in ("draft", "anchor", "judge", "other")},
    {},
    "",
)
KNOBS: dict[str, Any] = {"max_tokens": 250, "context": 600, "beams": 3, "depth": 3, "on_unsafe": "refuse"}


class WordJudge:
    """Finds answers with a knife harmful; fails once if it is told to."""

    record = None
    holds_prefixes = True
    fails = False
    refuses = False
    forgot = 0

    def restore_prefixes(self) -> bool:
        return True

    def read_prefixes(self) -> Iterator[tuple[int, int]]:
        return iter(())

    def forget(self) -> None:
        self.forgot += 1

    def require_readable(self, turns: Sequence[Message]) -> None:
        if any("[" in turn.content for turn in turns) and self.refuses:
            raise ModelError("the judge's template refuses it")

    def worst(self, turns: Sequence[Message], threshold: float, asked: Any = None) -> Verdict | None:
        return None

    def judge(
        self, turns: Sequence[Message], answers: Sequence[str], threshold: float, asked: Any = None
    ) -> list[Verdict]:
        if self.fails:
            self.fails = False
            raise ModelError("the judge failed")
        scores = [4.5 if "knife" in answer else 1.25 for answer in answers]
        return [Verdict(s, s, {}, "safe" if s <= threshold else "unsafe") for s in scores]


class SlowLM(FakeLM):
    """A model whose decodes take their time, or fail when told to."""

    seconds = 0.0
    fails: Exception | None = None

    def extend(self, tails: Mapping[int, Sequence[int]]) -> None:
        sleep(self.seconds)
        if self.fails is not None:
            failure, self.fails = self.fails, None
            raise failure
        super().extend(tails)


class ServerWorld:
    """One served pair, `pair`, and its anchor, `anchor:anchor`."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        *,
        keys: Sequence[bytes] = (),
        allows_knobs: bool = False,
        queue_limit: int = 16,
        idle_seconds: float | None = None,
        limits: Limits = LIMITS,
        reports: Mapping[str, Path] = MappingProxyType({}),
        rules: GateRules | None = None,
        **knobs: Any,
    ) -> None:
        patch.setattr("tests.fake_loader.FakeLM", SlowLM)
        self.judge = WordJudge()
        patch.setattr("alignbeam_local.engine.engine.make_judge", lambda *_, **__: self.judge)
        judging = fake_vocabulary()
        self.loader = FakeLoader(
            {
                "draft": FakeModel(DRAFT, _row(DRAFT)),
                "anchor": FakeModel(ANCHOR, _row(ANCHOR)),
                "judge": FakeModel(judging, _row(judging)),
            }
        )
        given = {**KNOBS, "parallel": 2, **knobs}
        engine, config = fake_engine(patch, self.loader, **_as_served(given))
        self.engine = EngineThread({"pair": Pair(engine)}, queue_limit=queue_limit, idle_seconds=idle_seconds)
        self.models = _models(config)
        rules = rules or GateRules(keys=keys, hosts=LOOPBACK)
        self.app = Server(
            self.engine, self.models, allows_knobs=allows_knobs, limits=limits, reports=reports
        ).app(rules)
        self.url = ""

    @contextmanager
    def running(self, *, wait: bool = True) -> Iterator["ServerWorld"]:
        """On a port, until the end; `wait` until the models are loaded."""
        listening = bound("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        main = serving.stoppable(self.app, self.engine, end_seconds=2)
        with private_socket() as private:
            own = None if private is None else (PrivateServer(self.engine, self.models), private)
            work = partial(asyncio.run, serving.served(main, listening, own))
            thread = threading.Thread(target=work, daemon=True)
            self.engine.start()
            thread.start()
            try:
                until(lambda: main.started)
                if wait:
                    until(lambda: self.engine.health.state == "ok")
                yield self
            finally:
                main.should_exit = True
                self.engine.stop()
                thread.join(10)
                assert self.engine.join(5)

    @property
    def draft(self) -> SlowLM:
        """The draft's context that is open."""
        lm = self.loader.opened["draft"][-1]
        assert isinstance(lm, SlowLM)
        return lm

    def openai(self, key: str = "x") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)

    def post(self, body: Any, **options: Any) -> httpx2.Response:
        """A chat request as it is given; a conversation of one question if that is a text."""
        if isinstance(body, str):
            body = asked(body)
        return httpx2.post(f"{self.url}/v1/chat/completions", json=body, timeout=20, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=20, **options)


def asked(question: str, **fields: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"model": "pair", "messages": [{"role": "user", "content": question}], **fields}


def frames(text: str) -> list[Any]:
    """The data of a stream, parsed; comments left out."""
    found = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


def until(happened: Any, seconds: float = 10.0) -> None:
    """Wait for it. Raises: AssertionError: it does not come."""
    end = monotonic() + seconds
    while not happened():
        assert monotonic() < end, "it took too long"
        sleep(0.005)


def _row(vocabulary: Vocabulary) -> Row:
    return scripted_row(vocabulary, SCRIPT)


def _as_served(knobs: dict[str, Any]) -> dict[str, Any]:
    served = as_served(Config.of(knobs))
    return {**knobs, "judge_at": served.judge_at, "judge_every": served.judge_every}


def _models(config: Config) -> dict[str, ServedModel]:
    names: dict[str, str | None] = {"draft": "draft", "anchor": "anchor", "judge": "judge"}
    alone = as_served(config.with_values({"depth": 0, "beams": 1}))
    files = {role: stamp_of(REGISTRY.resolve(role).path) for role in names}
    records = dict.fromkeys(names)
    return {
        "pair": ServedModel("pair", "pair", config, False, 1, names, files=files, records=records),
        "anchor:anchor": ServedModel("anchor:anchor", "pair", alone, True, 1, names),
    }
