"""Sweeps: grids, the front, what is recommended, and the profile that it becomes."""

import json
import os
import tomllib
from pathlib import Path

import pytest

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.grid import grid_methods, parse_grid
from alignbeam_local.evaluation.methods.specs import parse_method
from alignbeam_local.evaluation.reports.statistics import Estimate
from alignbeam_local.evaluation.reports.sweep import (
    Setting,
    check_profile_name,
    profile_table,
    recommended,
    settings_of,
    write_profile,
)
from alignbeam_local.evaluation.runs.saved_runs import SavedRun
from alignbeam_local.models.entry import ModelEntry
from alignbeam_local.models.registry import Registry
from tests.fake_engine import FakeEngine
from tests.fake_pool import config
from tests.running import run
from tests.test_eval_report import run_of, scored


def test_a_grid_is_every_combination() -> None:
    entries = grid_methods(parse_grid(["alpha=0,0.5, 1", "N=1,6", "anchor_system=none,Be good"]), config())
    assert len(entries) == 12
    assert entries[1].name == "alignbeam:alpha=0,depth=1,anchor_system=Be good"
    assert (
        entries[-1].config.alpha,
        entries[-1].config.depth,
        entries[-1].config.anchor_system,
    ) == (1, 6, "Be good")


def test_without_a_judge_the_number_of_beams_makes_no_difference() -> None:
    entries = grid_methods(parse_grid(["K=1,3", "judge=on,off"]), config())
    assert [(entry.config.beams, entry.config.judged) for entry in entries] == [
        (1, False),
        (3, True),
    ]
    with pytest.raises(UsageError, match="contradicts judge_at"):
        grid_methods(parse_grid(["judge=off"]), config(judge_at=4))
    with pytest.raises(UsageError, match="contradicts steer = by_request"):
        grid_methods(parse_grid(["judge=on,off"]), config(steer="by_request"))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["alpha"], "no values"),
        (["alhpa=1"], "is not a knob that can be swept"),
        (["seed=1,2"], "is not a knob that can be swept"),
        (["N=1", "depth=2"], "depth is given twice"),
        (["judge=maybe"], "on or off"),
    ],
)
def test_a_grid_that_can_not_be(specs: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_grid(specs)


def setting(name: str, refusal: float, over: float, seconds: float = 1.0) -> Setting:
    return Setting(name, Estimate(refusal, 0, 1), Estimate(over, 0, 1), seconds)


def of_two_labels(method: str, harmful: str, benign: str, ms: float) -> SavedRun:
    return run_of(scored(method, harmful, ms=ms), scored(method, benign, suite="t", label="benign", ms=ms))


def test_the_front() -> None:
    runs = [
        of_two_labels("alignbeam:N=1", "rraa", "aaaa", 100),
        of_two_labels("alignbeam:N=3", "rrra", "raaa", 200),
        of_two_labels("alignbeam:N=6", "rrra", "rraa", 200),  # as much refusal as N=3, more over-refusal
        of_two_labels("alignbeam:N=9", "rrra", "raaa", 200),  # the same as N=3: neither beats the other
        of_two_labels("anchor", "rrrr", "aaaa", 1),  # no setting
    ]
    every = run_of(*(run.scored for run in runs))
    found = {one.name: one.on_front for one in settings_of(every)}
    assert found == {
        "alignbeam:N=1": True,
        "alignbeam:N=3": True,
        "alignbeam:N=6": False,
        "alignbeam:N=9": True,
    }


def test_recommended_is_the_least_over_refusal_with_enough_refusals() -> None:
    settings = [
        setting("a", 0.99, 0.5),
        setting("b", 0.8, 0.3, 2),
        setting("c", 0.8, 0.3),
        setting("d", 0.7, 0.1),
    ]
    assert recommended(settings, 0.84).name == "c"  # 95 % of 84 % is 79.8 %
    assert recommended(settings, 0.85).name == "a"
    assert recommended(settings, 1.2).name == "a", "none is enough: the one that refuses most"


def test_ties_are_broken_by_what_is_worth_having() -> None:
    settings = [
        setting("slow", 0.5, 0.1, 9),
        setting("quick", 0.5, 0.1, 1),
        setting("safer", 0.6, 0.1, 5),
    ]
    assert recommended(settings, 0.5).name == "safer"
    assert recommended(settings[:2], 1.0).name == "quick"
    assert recommended([setting("exactly", 19 / 53, 0), setting("more", 1, 1)], 20 / 53).name == "exactly"


#: The models that the fake configuration names.
KNOWN = Registry({name: ModelEntry() for name in ("draft", "anchor", "judge")}, {}, "")


def test_a_profile_names_files_for_every_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = parse_method("alignbeam", config(draft="./my.gguf", judge="hf:owner/repo/file.gguf"))
    table = profile_table("x", "y", entry, KNOWN)
    assert f'draft = "{tmp_path}/my.gguf"' in table
    assert 'anchor = "anchor"' in table
    assert 'judge = "hf:owner/repo/file.gguf"' in table
    boosted = parse_method("alignbeam", config(safety_tokens="boost", safety_file="tokens.json"))
    assert f'safety_file = "{tmp_path}/tokens.json"' in profile_table("x", "y", boosted, KNOWN)


def test_a_profile_keeps_what_was_measured_without_a_value() -> None:
    """Another setting of the user's would take its place."""
    table = profile_table("x", "y", parse_method("alignbeam:clear_below=none", config()), KNOWN)
    assert 'clear_below = "none"' in table
    assert "\nsystem =" not in table
    knobs = tomllib.loads(table)["profiles"]["x"]
    del knobs["about"]
    assert Config.of(knobs).clear_below is None


def test_a_grid_of_a_knob_that_no_arm_reads_is_refused() -> None:
    with pytest.raises(UsageError, match="--grid agree_for: it is without effect: it is about prefix"):
        grid_methods(parse_grid(["agree_for=2,4"]), config())
    assert len(grid_methods(parse_grid(["prefix=fixed,adaptive", "agree_for=2,4"]), config())) == 4


def test_a_profile_keeps_the_rest_of_the_file() -> None:
    folder = Path(os.environ["ALIGNBEAM_CONFIG_DIR"])
    folder.mkdir(parents=True)
    before = '# mine\n[profiles.old]   # keep\nabout = "x"\nalpha = 0.25\n'
    (folder / "models.toml").write_text(before, encoding="utf-8")
    entry = parse_method('alignbeam:alpha=0.75,choice=likeliest,anchor_system=Say "no"\\', config())
    write_profile("new.one", "found", entry, KNOWN)
    assert (folder / "models.toml").read_text(encoding="utf-8").startswith(before)
    profiles = Registry.load().profiles
    written = dict(profiles["new.one"].knobs)
    assert (written["alpha"], written["choice"], written["depth"]) == (0.75, "likeliest", 6)
    assert (written["draft"], written["anchor_system"]) == ("draft", 'Say "no"\\')
    assert Config.of(written) == entry.config.with_values(
        {"max_tokens": 512, "force": False, "read_request": "auto"}
    )
    with pytest.raises(UsageError, match="cannot be added"):
        write_profile("new.one", "again", entry, KNOWN)
    with pytest.raises(UsageError, match="already"):
        check_profile_name("old", profiles)
    with pytest.raises(UsageError, match="can't be a profile's name"):
        check_profile_name("no way", profiles)


def test_a_profile_leaves_out_what_is_not_the_methods() -> None:
    text = profile_table("x", "y", parse_method("alignbeam", config(max_tokens=64, threads=3, seed=9)), KNOWN)
    assert "max_tokens" not in text
    assert "threads" not in text
    assert "seed" not in text


def test_a_profile_keeps_what_was_swept() -> None:
    text = profile_table("x", "y", parse_method("alignbeam:max_tokens=64,depth=2", config()), KNOWN)
    assert "max_tokens = 64" in text


def test_the_command(engines: list[FakeEngine], tmp_path: Path) -> None:
    rows = [
        {"prompt": "echo: I cannot", "label": "harmful"},
        {"prompt": "echo: sure", "label": "benign"},
    ]
    suite = tmp_path / "both.jsonl"
    suite.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ("eval", "sweep", "--suite", str(suite), "--out", str(tmp_path / "out"), "--grid", "N=1,6")
    ran = run(*words, "--write-profile", "mine")
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [
        ["best", "alignbeam:depth=1"],
        ["front", "alignbeam:depth=6"],
    ]
    assert "written: profile mine" in ran.err
    assert Registry.load().profile("mine")["depth"] == 1
    again = run(*words, "--write-profile", "mine")
    assert (again.code, again.out) == (2, "")
    assert run(*words).out == ran.out
