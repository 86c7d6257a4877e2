"""Where a knob's value comes from, and that a misspelt one never passes."""

import os
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.config import KNOBS
from alignbeam_local.errors import UsageError
from alignbeam_local.models.registry import Registry
from alignbeam_local.models.toml_files import Profile
from alignbeam_local.search.steering import decision_of, steering_of
from alignbeam_local.settings import SourcedConfig, near_knob, resolve

PROFILES = {
    "starter": Profile("starter", "", {"draft": "s-draft", "anchor": "s-anchor", "judge": "s-judge"}),
    "tuned": Profile("tuned", "", {"draft": "t-draft", "alpha": 0.1, "depth": 20}),
    "other": Profile("other", "", {"draft": "o-draft", "alpha": 0.2}),
    "needs": Profile("needs", "", {"draft": "n-draft", "steer": "by_request"}),
}
REGISTRY = Registry({}, PROFILES, "starter")


def settings(flags: dict[str, Any] | None = None, **environ: str) -> SourcedConfig:
    return resolve(flags or {}, REGISTRY, environ)


def write_config(text: str) -> Path:
    path = Path(os.environ["ALIGNBEAM_CONFIG_DIR"]) / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_defaults_take_the_models_of_the_default_profile() -> None:
    found = settings()
    assert (found.config.draft, found.config.anchor, found.config.judge) == ("s-draft", "s-anchor", "s-judge")
    assert found.config.profile == "starter"
    assert found.sources["alpha"] == "default"
    assert found.sources["draft"] == "default profile starter"
    assert set(found.sources) == set(KNOBS)


def test_a_draft_alone_keeps_the_default_anchor_and_judge() -> None:
    config = settings({"draft": "mine.gguf", "anchor": None}).config
    assert (config.draft, config.anchor, config.judge) == ("mine.gguf", "s-anchor", "s-judge")


def test_each_layer_yields_to_the_one_above() -> None:
    """Flag, environment, named profile, file, its profile, default; taken away one by one from above."""
    path = write_config('alpha = 0.3\nprofile = "other"')
    both = settings({"alpha": "0.9", "profile": "tuned"}, ALIGNBEAM_ALPHA="0.8")
    assert (both.config.alpha, both.sources["alpha"]) == (0.9, "--alpha")
    environment = settings({"profile": "tuned"}, ALIGNBEAM_ALPHA="0.8")
    assert (environment.config.alpha, environment.sources["alpha"]) == (0.8, "environment ALIGNBEAM_ALPHA")
    profile = settings({}, ALIGNBEAM_PROFILE="tuned")
    assert (profile.config.alpha, profile.sources["alpha"]) == (0.1, "profile tuned")
    assert profile.config.profile == "tuned"
    file = settings()
    assert (file.config.alpha, file.sources["alpha"]) == (0.3, str(path))
    assert (file.config.draft, file.sources["draft"]) == ("o-draft", "profile other")
    path.write_text('profile = "other"')
    assert (settings().config.alpha, settings().config.profile) == (0.2, "other")


def test_a_profile_by_flag_goes_before_one_by_environment() -> None:
    assert settings({"profile": "other"}, ALIGNBEAM_PROFILE="tuned").config.draft == "o-draft"


def test_a_named_profile_leaves_of_the_default_one_only_the_models() -> None:
    profiles = {**PROFILES, "starter": Profile("starter", "", {"judge": "s-judge", "depth": 9})}
    config = resolve({"profile": "other"}, Registry({}, profiles, "starter"), {}).config
    assert (config.judge, config.depth) == ("s-judge", 6)


@pytest.mark.parametrize("text", ["1.5", "much", "nan", "-0.1"])
def test_a_value_out_of_range_names_its_source(text: str) -> None:
    with pytest.raises(UsageError, match="environment ALIGNBEAM_ALPHA: alpha = "):
        settings(ALIGNBEAM_ALPHA=text)
    with pytest.raises(UsageError, match="--alpha: alpha = "):
        settings({"alpha": text})


def test_a_misspelt_variable_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        settings(ALIGNBEAM_TRESHOLD="3")
    assert caught.value.hint == "Did you mean ALIGNBEAM_THRESHOLD?"


def test_variables_that_are_no_knobs_and_empty_ones_are_left_alone() -> None:
    config = settings(ALIGNBEAM_OFFLINE="1", ALIGNBEAM_CACHE_DIR="/x", ALIGNBEAM_ALPHA="", PATH="/bin").config
    assert config.alpha == 0.5


def test_symbols_stand_for_knobs() -> None:
    write_config("N = 3")
    found = settings(ALIGNBEAM_K="2")
    assert (found.config.depth, found.config.beams) == (3, 2)


def test_a_name_and_its_symbol_together_are_an_error() -> None:
    write_config("N = 3\ndepth = 4")
    with pytest.raises(UsageError, match="depth is given twice"):
        settings()


@pytest.mark.parametrize("knob", ["beams", "alpha", "threshold", "judge_at", "K", "draft"])
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number(knob: str, value: bool) -> None:
    with pytest.raises(UsageError, match=f"line 3: .* = {value}: this knob can't be true or false"):
        settings().override({knob: value}, "line 3")
    assert settings().override({"ignore_eos": value}, "line 3").config.ignore_eos is value


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("alhpa = 1", "unknown knob 'alhpa'", "Did you mean alpha?"),
        ("max_token = 1", "unknown knob 'max_token'", "Did you mean max_tokens?"),
        ("alpha = = 1", "config.toml", "The file must be TOML."),
        ('profile = "starer"', "unknown profile 'starer'", "Did you mean starter"),
        ("alpha = 2", "alpha = 2: ", "anchor's weight"),
    ],
)
def test_a_wrong_file_is_an_error(text: str, message: str, hint: str) -> None:
    path = write_config(text)
    with pytest.raises(UsageError) as caught:
        settings()
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert hint in caught.value.hint


def test_who_sets_up_a_judge_that_one_beam_does_not_ask_is_told() -> None:
    assert settings({"beams": "1"}).notices == []
    for knobs in ({"threshold": "1.5", "choice": "likeliest"}, {"on_unsafe": "auto"}, {"judge": "mine"}):
        (notice,) = settings({"beams": "1", **knobs}).notices
        assert f"one beam is not judged: {', '.join(knobs)} without effect" in notice
        assert settings(knobs).notices == []
    assert settings({"beams": "1", "threshold": "1.5", "on_unsafe": "lowest"}).notices == []


@pytest.mark.parametrize(
    ("knob", "value", "needs"),
    [
        ("anchors", "strictest", {"anchor": '["a", "b"]'}),
        ("anchor_weights", "2", {"anchor": '["a", "b"]', "anchor_weights": "2,1"}),
        ("agree_for", "5", {"prefix": "adaptive"}),
        ("max_depth", "30", {"prefix": "adaptive"}),
        ("max_depth", "30", {"alpha_rule": "disagreement"}),
        ("late_every", "32", {"late": "window"}),
        ("request_by", "both", {"steer": "by_request"}),
        ("request_by", "judge", {"choice": "by_request"}),
        ("read_clear", "always", {"steer": "by_request"}),
        ("score_by", "head", {"steer": "by_request"}),
        ("score_by", "head", {"choice": "by_request"}),
        ("clear_below", "0.1", {"choice": "by_request"}),
        ("safety_file", "words.json", {"anchor_row": "gated"}),
        ("boost", "3", {"safety_tokens": "boost"}),
        ("safety_steps", "3", {"safety_tokens": "ablate"}),
    ],
)
def test_who_turns_a_knob_that_nothing_reads_is_told(knob: str, value: str, needs: dict[str, str]) -> None:
    by_nothing = {"choice": "safest"}
    (notice,) = settings({**by_nothing, knob: value}).notices
    assert notice.startswith(f"{knob} is without effect: ")
    assert settings({**by_nothing, knob: value, **needs}).notices == []
    assert settings({**by_nothing, **needs}).notices == []


@pytest.mark.parametrize(
    ("knobs", "idle"),
    [
        ({"depth": "0", "choice": "safest"}, {"alpha": "0.9", "anchor": "mine", "read_request": "on"}),
        ({"beams": "1", "on_unsafe": "refuse"}, {"min_start": "0.1"}),
        ({"judge": "head"}, {"head_votes": "on", "judge_gpu": "0", "read_clear": "always"}),
        ({"anchor": '["a", "b"]', "anchors": "strictest"}, {"anchor_weights": "2,1"}),
    ],
)
def test_each_knob_that_another_makes_idle_is_told(knobs: dict[str, str], idle: dict[str, str]) -> None:
    notices = settings(knobs | idle).notices
    assert {notice.split(" is without effect: ")[0] for notice in notices} == set(idle)
    assert settings(knobs).notices == []


@pytest.mark.parametrize("knobs", [{"depth": "0"}, {"read_request": "off"}])
def test_a_profile_that_can_not_steer_by_need_says_so(knobs: dict[str, str]) -> None:
    (notice,) = settings({"profile": "needs", "choice": "safest", **knobs}).notices
    assert notice.startswith("steer is without effect: nobody reads the request")


def test_who_asks_the_judge_about_requests_where_it_judges_nothing_is_told() -> None:
    (notice,) = settings({"beams": "1", "request_by": "judge"}).notices
    assert notice.startswith("request_by is without effect: ")


def test_a_head_as_judge_is_asked_nothing_about_requests_and_the_anchors_reads_on() -> None:
    found = settings({"judge": "head", "request_by": "judge"})
    assert found.config.reads_request
    (notice,) = found.notices
    assert notice.startswith("request_by is without effect: ")
    harmful = steering_of(found.config, 0.99, 0.99, 0.3, 0.8)
    assert decision_of(found.config, harmful, []) == "harmful"


def test_a_default_that_is_named_is_nothing_to_tell() -> None:
    assert (
        settings({"anchors": "mean", "agree_for": "3", "max_depth": "20", "late_every": "64"}).notices == []
    )


def test_depth_over_max_tokens_is_an_error_only_if_both_were_given() -> None:
    assert settings({"max_tokens": "4"}).notices == ["depth 6 is clipped to max_tokens 4"]
    assert settings({"profile": "tuned", "max_tokens": "4"}).notices
    assert settings({"max_tokens": "4", "depth": "4"}).notices == []
    with pytest.raises(UsageError, match=r"depth 5 \(environment ALIGNBEAM_DEPTH\) is over max_tokens 4"):
        settings({"max_tokens": "4"}, ALIGNBEAM_DEPTH="5")


def test_a_knob_in_two_variables_is_an_error() -> None:
    with pytest.raises(UsageError, match="environment ALIGNBEAM_K: beams is given twice"):
        settings(ALIGNBEAM_K="5", ALIGNBEAM_BEAMS="1")


def test_override_changes_a_copy_and_checks_it() -> None:
    before = settings({"max_tokens": "10"})
    after = before.override({"K": "1", "alpha": 1}, "line 3")
    assert (after.config.beams, after.config.alpha, after.sources["beams"]) == (1, 1.0, "line 3")
    assert before.config.beams == 3
    with pytest.raises(UsageError, match="line 3: unknown knob 'aplha'"):
        before.override({"aplha": 1}, "line 3")
    with pytest.raises(UsageError, match="over max_tokens"):
        before.override({"depth": 11}, "line 3")


def test_a_profile_leaves_nothing_of_the_one_before() -> None:
    before = settings({"beams": "2"}).with_profile("tuned", REGISTRY, "chat")
    assert (before.config.draft, before.config.alpha) == ("t-draft", 0.1)
    assert (before.sources["alpha"], before.given["alpha"].explicit) == ("profile tuned", False)
    after = before.with_profile("starter", REGISTRY, "chat")
    assert (after.config.draft, after.config.alpha, after.config.depth) == ("s-draft", 0.5, 6)
    assert (after.config.beams, after.sources["profile"]) == (2, "chat")
    other = after.with_profile("other", REGISTRY, "chat").config
    assert (other.draft, other.anchor) == ("o-draft", "s-anchor"), "the default profile's, as at the start"
    with pytest.raises(UsageError, match="chat: unknown profile 'nope'"):
        after.with_profile("nope", REGISTRY, "chat")


def test_near_knobs() -> None:
    assert near_knob("alhpa") == "alpha"
    assert near_knob("alpha") is None
    assert near_knob("N") is None
    assert near_knob("category") is None
