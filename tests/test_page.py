"""The page is one file that needs nothing else, and nothing that anybody wrote is markup in it."""

import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from alignbeam_local.config import Config
from alignbeam_local.errors import AlignBeamError
from alignbeam_local.events import AnswerText, BeamText, Done, Event, SteeredBack, Step, Withdrawn
from alignbeam_local.judge.calibration import Calibration, Fit, Line
from alignbeam_local.knobs.judging import Choice, OnUnsafe
from alignbeam_local.result import ModelCard, Refusal, Result
from alignbeam_local.server.page import page as page_module
from alignbeam_local.server.page.page import SCRIPTS, live_page, saved_page
from alignbeam_local.server.page.saved_answer import saved_answer
from alignbeam_local.server.protocol.answer_object import answer_object, outcome, table_of
from alignbeam_local.server.protocol.open_events import told_events
from alignbeam_local.server.protocol.record import Record

from .fake_engine import BEAMS, STEP, FakeEngine, judged_beams, running_beams
from .running import run

MARKUP = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>{{ data }}\u2028"
HOSTILE = f"{MARKUP}\ud800"  # half a character, which the browser's own dump can't write
HERE = Path(page_module.__file__).parent
CHROMIUM = shutil.which("chromium")


class Elements(HTMLParser):
    """Every start tag with its attributes, and what is in it as text."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1][0] if self.tags else "", data))

    def in_tag(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag and text.strip()]


def steps() -> list[Step]:
    return [event for event in running_beams() if isinstance(event, Step)]


def beams_result(**changes: Any) -> Result:
    done = next(event for event in judged_beams(Config()) if isinstance(event, Done))
    return replace(done.result, **changes)


def data_of(html: bytes) -> dict[str, Any]:
    data, _ = Elements(html).in_tag("script")
    return dict(json.loads(data))


def hashed(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def hostile_page(text: str = HOSTILE) -> bytes:
    result = beams_result(text=text)
    beams = tuple(replace(beam, text=text) for beam in result.beams)
    told = [replace(step, piece=text, draft_piece=text) for step in steps()]
    return saved_page(saved_answer(text, replace(result, beams=beams), told))


@pytest.mark.parametrize("html", [live_page().html, hostile_page()])
def test_the_policy_names_the_one_script_and_the_one_style(html: bytes) -> None:
    found = Elements(html)
    _, script = found.in_tag("script")
    (style,) = found.in_tag("style")
    policy = next(attributes["content"] or "" for _, attributes in found.tags if "http-equiv" in attributes)
    assert f"script-src {hashed(script)};" in policy
    assert f"style-src {hashed(style)};" in policy
    assert policy.startswith("default-src 'none';")


def test_the_header_adds_who_may_frame_it_and_only_the_live_page_asks_its_server() -> None:
    assert live_page().policy.endswith("; frame-ancestors 'none'")
    assert "connect-src 'self'" in live_page().policy
    assert b"connect-src 'none'" in hostile_page()


@pytest.mark.parametrize("html", [live_page().html, hostile_page()])
def test_nothing_is_inline_or_from_elsewhere(html: bytes) -> None:
    tags = Elements(html).tags
    names = {name for _, attributes in tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("style", "src", "srcdoc")}
    addresses = [attributes["href"] or "" for _, attributes in tags if "href" in attributes]
    assert all(address.startswith(("#", "data:image/svg+xml,")) for address in addresses)
    assert [tag for tag, _ in tags].count("script") == 2
    assert "img" not in [tag for tag, _ in tags]


def test_what_anybody_wrote_is_data() -> None:
    saved = data_of(hostile_page())["saved"]
    told = [saved["prompt"], saved["text"], saved["alignbeam"]["beams"][0]["text"]]
    assert told == [HOSTILE] * 3
    assert saved["alignbeam"]["steered"]["tokens"][0]["piece"] == HOSTILE


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_writes_text_alone(name: str) -> None:
    source = (HERE / name).read_text(encoding="utf-8")
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|\beval\b"
    ways += r"|new Function|setAttribute\(\"(style|on)|\.cssText|srcdoc|localStorage|sessionStorage|cookie"
    assert not re.findall(ways, source)
    assert "</script" not in source
    assert "<!--" not in source


@pytest.mark.parametrize(
    "reason",
    [
        "refused draft",
        "refused mix",
        *(f"{o} {by}" for o in ("blocked", "withdrawn") for by in ("judge", "request")),
    ],
)
def test_every_refusal_has_its_reason(reason: str) -> None:
    assert f'"{reason}":' in (HERE / "words.js").read_text(encoding="utf-8")


def test_every_script_is_in_the_page() -> None:
    assert {file.name for file in HERE.glob("*.js")} == set(SCRIPTS)


def test_the_knobs_are_those_of_the_config() -> None:
    knobs = data_of(live_page().html)["knobs"]
    assert knobs["choice"]["enum"] == list(get_args(Choice))
    assert knobs["on_unsafe"]["enum"] == list(get_args(OnUnsafe))
    assert (knobs["threshold"]["minimum"], knobs["threshold"]["maximum"]) == (1, 5)
    assert knobs["alpha"]["default"] == Config().alpha


# --- what is kept of an answer


def test_an_answer_with_its_steps_beams_and_choices() -> None:
    found = answer_object(beams_result(), steps())
    assert (found["outcome"], found["by"]) == ("refused", "mix")
    assert [beam["harm"] for beam in found["beams"]] == [1.25, 3.5, None]
    assert [beam["chosen"] for beam in found["beams"]] == [True, False, False]
    assert len(found["steered"]["tokens"]) == len(steps())
    assert found["steered"]["steps"] == 3
    assert found["selection"]["chosen"]["safest"]["refuse"] == [
        {"from": 1.0, "beam": None},
        {"from": 1.25, "beam": 0},
    ]


@pytest.mark.parametrize(
    ("finish", "is_refusal", "expected"),
    [
        ("stop", False, "answered"),
        ("length", True, "refused"),
        ("blocked", True, "blocked"),
        ("withdrawn", True, "withdrawn"),
    ],
)
def test_outcomes(finish: Any, is_refusal: bool, expected: str) -> None:
    assert outcome(beams_result(finish_reason=finish, refusal=Refusal(is_refusal, None))) == expected


def test_no_path_of_this_machine_is_in_it() -> None:
    card = ModelCard("mine", "/home/someone/mine.gguf", "ab" * 32, "Q4_K_M")
    config = {**Config().model_dump(), "draft": "/home/someone/mine.gguf"}
    result = beams_result(models={"draft": card, "anchor": None, "judge": None}, config=config)
    text = json.dumps(saved_answer("hi", result, steps()))
    assert "someone" not in text
    assert "mine" in text


def test_there_is_nothing_to_choose_among_beams_that_were_dropped_or_not_judged() -> None:
    result = beams_result()
    dropped = replace(result.beams[1], finish_reason="cancelled")
    unjudged = replace(result.beams[1], judge=None)
    for beam in (dropped, unjudged):
        assert table_of(replace(result, beams=(result.beams[0], beam)), None) is None
    assert table_of(replace(result, beams=()), None) is None


def test_auto_blocks_where_the_judges_record_lets_it() -> None:
    line = Line(slope=1, intercept=0)
    held_out: Any = {"refusal": (1.0,), "benign": (2.0,), "alarming": (2.0,), "compliance": (4.5,)}
    record = Calibration(
        judge="j", judge_sha256="", key="", fit=Fit(final=line), held_out=held_out, figures={},
        pairs_sha256="", date="", version="",
    )  # fmt: skip
    result = beams_result()
    beams = (replace(result.beams[1], index=0),)  # harm 3.5
    one = replace(result, beams=beams)
    known, unknown = table_of(one, record), table_of(one, None)
    assert known is not None
    assert unknown is not None
    assert [known.at("safest", "auto", at) for at in (1.0, 1.99, 2.0, 3.49, 3.5)] == [0, 0, None, None, 0]
    assert [unknown.at("safest", "auto", at) for at in (1.0, 2.0, 3.5)] == [0, 0, 0]


# --- alignbeam ask --html


def test_ask_writes_the_page_and_answers_as_ever(tmp_path: Path, engines: list[FakeEngine]) -> None:
    path = tmp_path / "answer.html"
    ran = run("ask", "--html", str(path), "beams")
    assert (ran.code, ran.out) == (0, f"{BEAMS[0]}\n")
    assert f"written: {path}" in ran.err
    saved = data_of(path.read_bytes())["saved"]
    assert saved["prompt"] == "beams"
    assert [beam["text"] for beam in saved["alignbeam"]["beams"]] == list(BEAMS)
    assert saved["alignbeam"]["steered"]["tokens"]


def test_a_blocked_answer_is_written_before_the_exit_code_says_so(
    tmp_path: Path, engines: list[FakeEngine]
) -> None:
    path = tmp_path / "answer.html"
    ran = run("ask", "--quiet", "--fail-on-refusal", "--html", str(path), "refuse")
    assert (ran.code, ran.err) == (4, "")
    assert data_of(path.read_bytes())["saved"]["alignbeam"]["outcome"] == "blocked"


def test_a_folder_is_refused_before_anything_is_asked(tmp_path: Path, engines: list[FakeEngine]) -> None:
    ran = run("ask", "--html", str(tmp_path), "beams")
    assert ran.code == 2
    assert "is a folder" in ran.err
    assert not engines


@pytest.mark.usefixtures("engines")
def test_what_cannot_be_written_is_said_after_the_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = run("ask", "--html", str(tmp_path / "file" / "x.html"), "beams")
    assert ran.code == AlignBeamError.exit_code
    assert ran.out == f"{BEAMS[0]}\n"
    assert "Traceback" not in ran.err


# --- in a browser


def shown(path: Path) -> str:
    """The document as a browser leaves it."""
    assert CHROMIUM
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom")
    ran = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={path.parent / 'profile'}", path.as_uri()],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return ran.stdout.decode()


@pytest.mark.skipif(not CHROMIUM or sys.platform != "linux", reason="needs chromium")
def test_a_browser_shows_markup_as_text(tmp_path: Path) -> None:
    path = tmp_path / "answer.html"
    path.write_bytes(hostile_page(MARKUP))
    body = shown(path).partition("<script")[0]
    assert body.count("&lt;/script&gt;&lt;script&gt;alert(1)") >= 5, "prompt, answer, beams, their tokens"
    assert "<img" not in body
    assert "Beam 3" in body


SEES = """
const seen = STREAMS.map((chunks) => {
  const run = new Run("alignbeam");
  const texts = chunks.map((chunk) => (run.take(chunk), run.text));
  const [{ steps, rest, tokens }] = run.beams;
  return { texts, steps: steps.map((step) => step.position), rest, tokens };
});
document.body.textContent = JSON.stringify(seen);
"""


def chunks(*batches: list[Event]) -> list[dict[str, Any]]:
    """What the server sends of these in `open` mode."""
    record = Record(cast(Any, None))
    deltas = [{"content": text} if (text := record.take(batch)) else {} for batch in batches]
    told = [{"events": told_events(batch)} for batch in batches]
    return [{"choices": [{"delta": d}], "alignbeam": t} for d, t in zip(deltas, told, strict=True)]


def seen_by_the_page(path: Path, streams: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What its runs hold of these streams, as a browser has it."""
    source = (HERE / "run.js").read_text(encoding="utf-8")
    script = f"{source}\nconst STREAMS = {json.dumps(streams)};\n{SEES}"
    path.write_text(f"<meta charset=utf-8><body><script>{script}</script></body>", encoding="utf-8")
    found = shown(path).partition("<body>")[2].partition("</body>")[0]
    return list(json.loads(unescape(found)))


@pytest.mark.skipif(not CHROMIUM or sys.platform != "linux", reason="needs chromium")
def test_what_was_taken_back_is_on_the_page_no_more(tmp_path: Path) -> None:
    grown: list[Event] = [
        *(replace(STEP, beam=0, position=at) for at in (0, 1, 9)),
        BeamText(0, "Good. Bad.", mixed=False),
        AnswerText("Good. Bad."),
    ]
    back: list[Event] = [SteeredBack(0, 9, 1), Withdrawn("Good.", stands=5)]
    again: list[Event] = [
        replace(STEP, beam=0, position=9),
        BeamText(0, " Better.", mixed=False),
        AnswerText(" Better."),
    ]
    anew: list[Event] = [Withdrawn(""), AnswerText("Other.")]
    refused: list[Event] = [Withdrawn("No.")]
    streams = [(grown, back, again), ([*grown, *back, *again],), (grown, anew), (grown, refused)]
    apart, at_once, other, withdrawn = seen_by_the_page(
        tmp_path / "runs.html", [chunks(*batches) for batches in streams]
    )
    assert apart == {
        "texts": ["Good. Bad.", "Good.", "Good. Better."],
        "steps": [0, 1, 9],
        "rest": "… Better.",
        "tokens": 10,
    }
    assert at_once == {**apart, "texts": ["Good. Better."]}
    assert other["texts"][-1] == "Other."
    assert withdrawn["texts"][-1] == "No."
