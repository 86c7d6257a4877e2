"""Each set of knobs is what it was: by literal lists, so that a mark that goes or comes is seen."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from alignbeam_local.bench.cases import Sweep
from alignbeam_local.config import (
    ABOUT,
    ALIASES,
    KNOBS,
    Config,
    by_name,
    canonical,
    knobs_of,
    knobs_that,
    unknown_knob,
)
from alignbeam_local.engine.engine import LOADING_KNOBS
from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.runs import reselect
from alignbeam_local.knobs.judging import CHAT_JUDGE_AT
from alignbeam_local.knobs.knob import PANELS, Knob, Mark
from alignbeam_local.knobs.sampling import MOST_SEED
from alignbeam_local.knobs.values import MOST_TOKENS
from alignbeam_local.roles import ROLES

MARKED: dict[Mark, str] = {
    "loads": """draft anchor judge profile lora context threads parallel gpu_layers main_gpu tensor_split
        draft_gpu anchor_gpu judge_gpu split_mode rpc
        flash_attn cache_type_k cache_type_v kv prompt_cache force""",
    "places": "gpu_layers main_gpu tensor_split draft_gpu anchor_gpu judge_gpu split_mode rpc",
    "sizes": """prefix max_depth alpha_rule anchor_row steer late head_votes beams
        max_tokens draft anchor judge profile lora context gpu_layers main_gpu tensor_split
        draft_gpu anchor_gpu judge_gpu split_mode rpc flash_attn cache_type_k cache_type_v""",
    "judges": "threshold choice min_start late on_unsafe head_votes refusal_text judge",
    "selects": "threshold choice min_start on_unsafe",
    "measured": """alpha depth beams bridge_width variant draft_mass prefix max_depth agree_for alpha_rule
        anchors anchor_weights anchor_row safety_tokens boost safety_steps
        safety_file steer clear_below harmful_above request_by score_by threshold choice min_start judge_at
        judge_every late late_every late_tries on_unsafe head_votes
        temperature top_p top_k min_p repeat_penalty draft anchor judge lora system anchor_system""",
    "shared": "seed draft anchor judge profile lora safety_file prompt_cache",
    "benched": "depth beams bridge_width",
}

UNDER = {
    "Method": """alpha depth beams bridge_width variant draft_mass prefix max_depth agree_for alpha_rule
        anchors anchor_weights anchor_row safety_tokens boost safety_steps safety_file""",
    "Steering": "steer clear_below harmful_above request_by score_by read_clear read_request",
    "Judge": """threshold choice min_start judge_at judge_every late late_every late_tries on_unsafe
        head_votes refusal_text""",
    "Sampling": """temperature top_p top_k min_p repeat_penalty seed max_tokens stop prefill ignore_eos
        grammar json_schema""",
    "Models": "draft anchor judge profile lora system anchor_system force",
    "Machine": """context threads parallel gpu_layers main_gpu tensor_split draft_gpu anchor_gpu
        judge_gpu split_mode rpc flash_attn cache_type_k
        cache_type_v kv prompt_cache""",
}

DEFAULTS: dict[str, Any] = {
    "alpha": 0.5,
    "depth": 6,
    "beams": 3,
    "bridge_width": 50,
    "variant": "drop",
    "draft_mass": "each",
    "prefix": "fixed",
    "max_depth": 20,
    "agree_for": 3,
    "alpha_rule": "fixed",
    "anchors": "mean",
    "anchor_weights": None,
    "anchor_row": "plain",
    "safety_tokens": "none",
    "boost": 5.0,
    "safety_steps": None,
    "safety_file": None,
    "threshold": 2.5,
    "steer": "always",
    "clear_below": None,
    "harmful_above": None,
    "request_by": "head",
    "score_by": "both",
    "read_clear": "needed",
    "read_request": "auto",
    "choice": "by_request",
    "min_start": 0.0,
    "judge_at": None,
    "judge_every": None,
    "late": "off",
    "late_every": 64,
    "late_tries": 2,
    "on_unsafe": "auto",
    "head_votes": False,
    "temperature": 0.7,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.15,
    "seed": 42,
    "max_tokens": 512,
    "stop": (),
    "prefill": None,
    "ignore_eos": False,
    "grammar": None,
    "json_schema": None,
    "draft": None,
    "anchor": None,
    "judge": None,
    "profile": None,
    "lora": (),
    "system": None,
    "anchor_system": "none",
    "context": 4096,
    "threads": 0,
    "parallel": 1,
    "gpu_layers": "auto",
    "main_gpu": None,
    "tensor_split": None,
    "draft_gpu": None,
    "anchor_gpu": None,
    "judge_gpu": None,
    "split_mode": "layer",
    "rpc": (),
    "flash_attn": "auto",
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "kv": "auto",
    "prompt_cache": "examples",
    "force": False,
}


# --- marks and headings


@pytest.mark.parametrize("mark", MARKED)
def test_what_has_a_mark(mark: Mark) -> None:
    assert set(knobs_that(mark)) == set(MARKED[mark].split())


def test_every_mark_is_listed_here_and_on_some_knob() -> None:
    assert set(MARKED) == set(get_args(Mark)) == {mark for about in ABOUT.values() for mark in about.marks}


def test_who_reads_a_mark_reads_that_one() -> None:
    assert set(MARKED["loads"].split()) == LOADING_KNOBS
    assert set(reselect.KNOBS) == {
        *MARKED["selects"].split(),
        "steer",
        "clear_below",
        "harmful_above",
        "request_by",
        "score_by",
    }
    for knob in KNOBS:
        if knob in MARKED["benched"].split():
            assert Sweep.parse(f"{knob}=1") == Sweep(knob, (1,))
        else:
            with pytest.raises(UsageError):
                Sweep.parse(f"{knob}=1")


def test_what_selects_is_also_without_effect_where_nothing_is_judged() -> None:
    assert set(knobs_that("selects")) < set(knobs_that("judges"))
    assert set(knobs_that("places")) < set(knobs_that("loads"))


@pytest.mark.parametrize("panel", PANELS)
def test_what_stands_under_a_heading_in_the_order_of_the_fields(panel: Any) -> None:
    assert list(knobs_of(panel)) == [knob for knob in KNOBS if knob in UNDER[panel].split()]
    assert set(knobs_of(panel)) == set(UNDER[panel].split())


def test_a_knob_keeps_what_stands_beside_it() -> None:
    assert ABOUT["beams"] == Knob("Method", ("measured", "benched", "sizes"), "K")
    assert ABOUT["kv"] == Knob("Machine", ("loads",))
    assert Knob("Judge") == Knob("Judge", (), None)


def test_no_mark_stands_twice_on_a_knob() -> None:
    assert all(len(set(about.marks)) == len(about.marks) for about in ABOUT.values())


# --- defaults


def test_every_default_is_what_it_was() -> None:
    values = Config().model_dump()
    assert values.pop("refusal_text") == "I'm sorry, but I can't help with that."
    assert values == DEFAULTS


def test_a_chat_judges_sooner_than_an_answer_may_be_long() -> None:
    assert DEFAULTS["max_tokens"] > CHAT_JUDGE_AT == 32


# --- names and symbols


def test_the_papers_letters() -> None:
    assert ALIASES == {"N": "depth", "K": "beams", "B": "bridge_width"}
    assert [canonical(word) for word in ("N", "K", "B", "k", "alpha", "nonsense")] == [
        "depth",
        "beams",
        "bridge_width",
        "k",
        "alpha",
        "nonsense",
    ]


def test_values_by_their_whole_names_in_their_order() -> None:
    assert list(by_name({"K": 2, "alpha": 0.1, "N": 4}).items()) == [
        ("beams", 2),
        ("alpha", 0.1),
        ("depth", 4),
    ]
    assert by_name({}) == {}


@pytest.mark.parametrize(("source", "before"), [("", ""), ("x.toml", "x.toml: ")])
def test_a_knob_by_both_of_its_names_is_refused(source: str, before: str) -> None:
    with pytest.raises(UsageError) as caught:
        by_name({"K": 2, "beams": 2}, source)
    assert caught.value.message == f"{before}beams is given twice"
    assert caught.value.hint == "Write either its name or its symbol."


def test_an_unknown_knob_names_the_nearest_or_all() -> None:
    near = unknown_knob("beems", "--knobs")
    assert (near.message, near.hint) == ("--knobs: unknown knob 'beems'", "Did you mean beams?")
    far = unknown_knob("zzz")
    assert far.message == "unknown knob 'zzz'"
    assert far.hint == f"Knobs: {', '.join(KNOBS)}"


def test_an_unknown_field_is_that_error_also_for_a_whole_configuration() -> None:
    with pytest.raises(UsageError, match="my file: unknown knob 'tresh'"):
        Config.of({"tresh": 1}, "my file")


# --- values


@pytest.mark.parametrize(
    "knob", [knob for knob in KNOBS if knob not in ("ignore_eos", "force", "head_votes")]
)
def test_a_truth_value_is_no_value_of_another_knob(knob: str) -> None:
    with pytest.raises(UsageError, match=f"{knob} = True: this knob can't be true or false"):
        Config.of({knob: True})


@pytest.mark.parametrize("knob", ["draft", "system", "refusal_text", "anchor_system"])
def test_a_text_with_half_a_character_is_refused(knob: str) -> None:
    with pytest.raises(UsageError, match="this is not unicode text"):
        Config.of({knob: "a\ud800"})


@pytest.mark.parametrize(
    "knob", ["judge_at", "judge_every", "main_gpu", "tensor_split", "grammar", "json_schema"]
)
def test_none_can_be_typed_where_none_is_a_value(knob: str) -> None:
    assert getattr(Config.of({knob: "none"}), knob) is None


@pytest.mark.parametrize("given", [-1, "-1"])
def test_gpu_layers_as_llama_cpp_counts(given: Any) -> None:
    assert Config.of({"gpu_layers": given}).gpu_layers == "auto"


def test_other_negative_gpu_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="gpu_layers = -2"):
        Config.of({"gpu_layers": -2})


@pytest.mark.parametrize(
    ("value", "is_ok"), [(0, True), (0.0009, False), (0.001, True), (10, True), (11, False)]
)
def test_a_temperature_next_to_0_is_none(value: float, is_ok: bool) -> None:
    if is_ok:
        assert Config.of({"temperature": value}).temperature == value
    else:
        with pytest.raises(UsageError, match=f"temperature = {value:g}"):
            Config.of({"temperature": value})


def test_the_error_of_a_value_says_source_value_reason_and_meaning() -> None:
    with pytest.raises(UsageError) as caught:
        Config.of({"alpha": 2}, "environment ALIGNBEAM_ALPHA")
    assert caught.value.message == (
        "environment ALIGNBEAM_ALPHA: alpha = 2: input should be less than or equal to 1"
    )
    assert caught.value.hint.startswith("alpha: anchor's weight in the mixture")


def test_the_first_wrong_value_does_not_hide_the_others() -> None:
    wrong = {"alpha": 5, "beams": 0, "depth": 3, "gpu_layers": -2}
    with pytest.raises(UsageError, match=r"alpha = 5: .*; also wrong: beams, gpu_layers$"):
        Config.of(wrong, "config.toml")
    with pytest.raises(UsageError) as caught:
        Config.of({"gpu_layers": -2})
    assert "also wrong" not in caught.value.message


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(UsageError) as caught:
        Config.of({"variant": "x" * 500})
    assert f"variant = '{'x' * 59}...: " in caught.value.message
    with pytest.raises(UsageError) as caught:
        Config.of({"variant": "x" * 78})
    assert f"variant = '{'x' * 78}': " in caught.value.message


@pytest.mark.parametrize("most", [("max_tokens", MOST_TOKENS), ("context", MOST_TOKENS), ("seed", MOST_SEED)])
def test_the_most_that_can_be_asked_for(most: tuple[str, int]) -> None:
    knob, value = most
    assert getattr(Config.of({knob: value}), knob) == value
    with pytest.raises(UsageError):
        Config.of({knob: value + 1})


def test_the_seed_of_the_last_beam_fits_32_bits() -> None:
    assert MOST_SEED + 32 < 2**32


# --- how an answer ends, and what it keeps to


@pytest.mark.parametrize("value", [None, "none", ["none"], (), []])
def test_nothing_ends_an_answer(value: Any) -> None:
    assert Config.of({"stop": value}).stop == ()


@pytest.mark.parametrize(
    ("value", "texts"), [("END", ("END",)), (["a", "b"], ("a", "b")), ('["x\\n", "y"]', ("x\n", "y"))]
)
def test_texts_that_end_an_answer(value: Any, texts: tuple[str, ...]) -> None:
    assert Config.of({"stop": value}).stop == texts


def test_an_empty_text_would_end_every_answer() -> None:
    with pytest.raises(UsageError, match="an empty text would end every answer at once"):
        Config.of({"stop": ["a", ""]})


@pytest.mark.parametrize("knob", ["grammar", "json_schema"])
@pytest.mark.parametrize("other", [{"stop": ["a"]}, {"ignore_eos": True}])
def test_a_grammar_goes_with_nothing_that_cuts_or_lengthens(knob: str, other: dict[str, Any]) -> None:
    (name,) = other
    with pytest.raises(UsageError, match=f"it does not go together with {name}"):
        Config.of({knob: "x", **other})
    with pytest.raises(UsageError, match="there is nothing in it"):
        Config.of({knob: " \n"})


def test_a_schema_and_a_grammar_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="json_schema = 'b': it does not go together with grammar"):
        Config.of({"grammar": "a", "json_schema": "b"})


# --- GPUs


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("3,1", (3.0, 1.0)),
        ("1", (1.0,)),
        ("0,1", (0.0, 1.0)),
        ("0.5, 0.5", (0.5, 0.5)),
        ("1e6,1", (1e6, 1.0)),
    ],
)
def test_shares_of_gpus(text: str, shares: tuple[float, ...]) -> None:
    assert Config.of({"tensor_split": text}).gpu_shares == shares


@pytest.mark.parametrize("text", ["", "a", "0", "0,0", "-1,1", "1,nan", "inf,1", "1,,1", "1e-4,1", "1e7"])
def test_what_are_no_shares(text: str) -> None:
    with pytest.raises(UsageError, match="not a list of shares, such as 3,1"):
        Config.of({"tensor_split": text})


def test_one_gpu_has_nothing_to_share() -> None:
    with pytest.raises(UsageError, match="main_gpu names one gpu, so there is nothing to share"):
        Config.of({"tensor_split": "1,1", "main_gpu": 0})
    assert Config.of({"main_gpu": 0}).gpu_shares == ()


@pytest.mark.parametrize("cache", ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])
def test_quantised_values_need_flash_attention(cache: str) -> None:
    with pytest.raises(UsageError, match="a quantised type needs flash_attn on or auto"):
        Config.of({"cache_type_v": cache, "flash_attn": "off"})
    for flash in ("on", "auto"):
        assert Config.of({"cache_type_v": cache, "flash_attn": flash}).cache_type_v == cache
    assert Config.of({"cache_type_k": cache, "flash_attn": "off"}).cache_type_k == cache


@pytest.mark.parametrize("cache", ["f32", "f16", "bf16"])
def test_whole_values_need_none(cache: str) -> None:
    assert Config.of({"cache_type_v": cache, "flash_attn": "off"}).cache_type_v == cache


def test_the_judges_cache_stays_whole() -> None:
    config = Config.of({"cache_type_k": "q8_0", "cache_type_v": "q4_0"})
    assert [config.cache_types(role) for role in ROLES] == [
        ("q8_0", "q4_0"),
        ("q8_0", "q4_0"),
        ("f16", "f16"),
    ]


# --- what knobs come to


@pytest.mark.parametrize(
    ("knobs", "judged"),
    [
        ({}, True),
        ({"beams": 1}, False),
        ({"beams": 1, "on_unsafe": "refuse"}, True),
        ({"beams": 1, "on_unsafe": "lowest"}, True),
        ({"beams": 1, "judge_at": 5}, True),
        ({"beams": 1, "judge_every": 5}, True),
        ({"beams": 1, "threshold": 1}, False),
        ({"beams": 2, "on_unsafe": "auto"}, True),
    ],
)
def test_what_is_judged(knobs: dict[str, Any], judged: bool) -> None:
    assert Config.of(knobs).judged == judged


@pytest.mark.parametrize(
    ("knobs", "roles"),
    [
        ({}, ("draft", "anchor", "judge")),
        ({"depth": 0}, ("draft", "judge")),
        ({"beams": 1}, ("draft", "anchor")),
        ({"beams": 1, "depth": 0}, ("draft",)),
    ],
)
def test_which_models_an_answer_needs_in_order(knobs: dict[str, Any], roles: tuple[str, ...]) -> None:
    assert Config.of(knobs).roles == roles


@pytest.mark.parametrize("role", ROLES)
def test_a_role_without_a_model(role: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config().model_named(role)
    assert caught.value.message == f"no {role} model is named"
    assert caught.value.hint == f"Give --{role} MODEL or --profile NAME."
    assert Config.of({role: "x"}).model_named(role) == "x"


@pytest.mark.parametrize(("depth", "longest", "mixed"), [(6, 512, 6), (6, 4, 4), (0, 4, 0), (5, 5, 5)])
def test_no_more_is_mixed_than_said(depth: int, longest: int, mixed: int) -> None:
    assert Config.of({"depth": depth, "max_tokens": longest}).mixed_depth == mixed


def test_n_tokens_are_mixed_or_to_where_they_may_go_on() -> None:
    for rule, longest in ({}, 7), ({"max_depth": 3, "prefix": "adaptive"}, 7), ({"prefix": "adaptive"}, 20):
        assert Config.of({"depth": 7, **rule}).longest_prefix == longest
    assert Config.of({"depth": 0, "prefix": "adaptive"}).longest_prefix == 0


def test_changed_values_are_checked_anew_and_take_symbols() -> None:
    config = Config.of({"alpha": 0.1, "cache_type_v": "q8_0"})
    changed = config.with_values({"K": 5})
    assert (changed.beams, changed.alpha, config.beams) == (5, 0.1, 3)
    assert config.with_values({}) is config
    with pytest.raises(UsageError, match="beams is given twice"):
        config.with_values({"K": 1, "beams": 3})
    with pytest.raises(UsageError, match="chat: cache_type_v = 'q8_0'"):
        config.with_values({"flash_attn": "off"}, "chat")


def test_a_configuration_does_not_change_in_place() -> None:
    with pytest.raises(ValidationError):
        Config().alpha = 1.0


def test_no_validator_hides_another_ones() -> None:
    own = [name for base in Config.__bases__ for name in base.__pydantic_decorators__.field_validators]  # type: ignore[attr-defined]
    assert set(own) < set(Config.__pydantic_decorators__.field_validators)
    assert len(own) == len(set(own))
