"""Every number that a person can give has its range, wherever it is given: none reaches C unchecked."""

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
from alignbeam_local.cli.main import make_app
from alignbeam_local.cli.options import metavar

from alignbeam_local.config import KNOBS, Config
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.evaluation.methods.specs import METHODS, parse_method
from alignbeam_local.knobs.sampling import MOST_SEED
from alignbeam_local.knobs.values import MOST_TOKENS
from alignbeam_local.llama.library import require_countable
from alignbeam_local.paths import config_file
from tests.fake_engine import FakeEngine
from tests.running import Ran, run

pytestmark = pytest.mark.usefixtures("llama_cpp_asked_once")

NUMBERS = [knob for knob in KNOBS if re.search("INT|NUMBER", metavar(Config.model_fields[knob]))]
TOO_LARGE = ("9" * 20, str(2**64 + 1), "1e30", "nan", "inf")
TOO_LARGE_INTS = ("9" * 20, str(2**32 + 1), str(2**64 + 1))
ENDS = r"(greater|less) than( or equal to)? -?[\d.e]+$"


def is_whole(knob: str) -> bool:
    return "INT" in metavar(Config.model_fields[knob])


def beyond() -> Iterator[tuple[str, str]]:
    for knob in NUMBERS:
        for value in TOO_LARGE_INTS if is_whole(knob) else TOO_LARGE:
            yield knob, value
        yield knob, "-2"


def test_every_number_among_the_knobs_has_two_ends() -> None:
    assert {"threads", "context", "seed", "gpu_layers", "main_gpu", "max_tokens", "judge_at"} <= {*NUMBERS}
    for knob in NUMBERS:
        assert re.search(r"[\d.][<≤](INT|NUMBER)[<≤][\d.]", metavar(Config.model_fields[knob])), knob


@pytest.mark.parametrize(("knob", "value"), list(beyond()))
def test_beyond_them_is_a_usage_error_that_names_the_end(knob: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{knob} = .*: input should be {ENDS}"):
        Config.of({knob: value})


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        *[(knob, "9" * 5000, f"{knob} = '9999") for knob in NUMBERS if is_whole(knob)],
        ("threads", "513", "equal to 512"),
        ("temperature", "1e-40", "0, or at least 0.001"),
        ("repeat_penalty", "1e-40", "equal to 0.001"),
        ("tensor_split", "1e39,1", "not a list of shares"),
        ("tensor_split", "1e-50,1e-50", "not a list of shares"),
        ("tensor_split", "nan,1", "not a list of shares"),
        ("tensor_split", "inf,1", "not a list of shares"),
    ],
)
def test_what_c_would_take_for_another_number(knob: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.of({knob: value})
    assert message in caught.value.message
    assert len(caught.value.message) < 200


def test_what_is_within_them_stays() -> None:
    most = {"threads": 512, "context": MOST_TOKENS, "max_tokens": MOST_TOKENS, "seed": MOST_SEED}
    assert Config.of(most).model_dump(include=set(most)) == most
    given = Config.of({"temperature": 0, "tensor_split": "0,3", "gpu_layers": "-1", "judge_at": "none"})
    assert (given.temperature, given.gpu_shares, given.gpu_layers, given.judge_at) == (
        0,
        (0, 3),
        "auto",
        None,
    )


# --- the ways to give a number


def given_as(way: str, knob: str, value: str, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Run with a knob from somewhere."""
    match way:
        case "flag":
            return run("ask", "hi", f"--{knob.replace('_', '-')}", value)
        case "environment":
            monkeypatch.setenv(f"ALIGNBEAM_{knob.upper()}", value)
        case "file":
            config_file().parent.mkdir(parents=True)
            config_file().write_text(f"{knob} = {value}\n")
        case "profile":
            config_file().parent.mkdir(parents=True)
            config_file().with_name("models.toml").write_text(f"[profiles.wild]\n{knob} = {value}\n")
            return run("ask", "hi", "--profile", "wild")
    return run("ask", "hi")


@pytest.mark.parametrize("way", ["flag", "environment", "file", "profile"])
@pytest.mark.parametrize("value", ["4294967297", "9" * 20, "9" * 5000])
@pytest.mark.parametrize("knob", ["threads", "context", "seed", "max_tokens"])
def test_it_is_refused_from_anywhere(
    way: str, knob: str, value: str, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = given_as(way, knob, value, monkeypatch)
    assert (done.code, done.out, engines) == (2, "", []), done.err
    assert "internal" not in done.err
    if len(value) < 99:
        assert "less than or equal to" in done.err


@pytest.mark.parametrize("value", ["4294967297", "9" * 20, "9" * 5000])
def test_so_it_is_in_a_chat_and_in_a_row(value: str, engines: list[FakeEngine]) -> None:
    done = run(
        "chat", "--no-log", given=f"/set max_tokens {value}\n/set seed {value}\necho: on\n/why {value}\n"
    )
    assert (done.err.count("error: "), done.out) == (3, "on\n"), done.err
    done = run("filter", "--jsonl", given=f'{{"prompt": "x", "max_tokens": {value}}}\n')
    assert (done.code, json.loads(done.out)["error"]["type"]) == (1, "usage")


# --- the commands' own numbers


def numbers_of(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """The options that are numbers, with what they were declared as."""
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from numbers_of(group.typer_instance)
    for command in app.registered_commands:
        assert command.callback is not None
        for parameter in inspect.signature(command.callback).parameters.values():
            kind, *marks = get_args(parameter.annotation) or [parameter.annotation]
            if re.search(r"\b(int|float)\b", str(kind)):
                yield f"{command.callback.__name__}:{parameter.name}", marks[0]


def test_each_has_two_ends() -> None:
    found = dict(numbers_of(make_app()))
    assert len(found) > 8
    del found["filter_prompts:timeout"]  # it looks itself: 0 is not one of them
    for name, option in found.items():
        assert None not in (option.min, option.max), name


@pytest.mark.parametrize(
    "words",
    [
        ("logs", "list", "--limit"),
        ("logs", "search", "x", "-n"),
        ("logs", "show", "-n"),
        ("logs", "prune", "--keep"),
        ("filter", "--timeout"),
        ("bench", "--repeats"),
        ("bench", "--prompt-tokens"),
        ("bench", "--new-tokens"),
        ("bench", "--parallel"),
        ("bridge", "a", "b", "-B"),
        ("doctor", "--context"),
        ("judge", "check", "x", "--threshold"),
        ("eval", "run", "--suite", "x", "--out", "y", "--limit"),
        ("eval", "run", "--suite", "x", "--out", "y", "--seed"),
    ],
)
@pytest.mark.parametrize("value", ["9" * 20, "9" * 5000, "-1e3"])
def test_one_beyond_is_a_usage_error(words: tuple[str, ...], value: str, engines: list[FakeEngine]) -> None:
    done = run(*words, value)
    assert (done.code, engines) == (1 if words[0] == "doctor" else 2, []), "doctor goes on: it is a finding"
    assert "internal" not in done.err


@pytest.mark.parametrize("swept", ["K", "N", "B", "prompt-tokens", "new-tokens"])
def test_a_sweep_has_the_knobs_ranges(swept: str, engines: list[FakeEngine]) -> None:
    done = run("bench", "--sweep", f"{swept}=1,{'9' * 20}")
    assert (done.code, engines) == (2, [])
    assert "less than or equal to" in done.err


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_parameters_have_two_ends(name: str) -> None:
    for parameter, field in METHODS[name].model_fields.items():
        if field.annotation in (int, float):
            with pytest.raises(UsageError, match=r"less than or equal to|finite"):
                parse_method(f"{name}:{parameter}={'9' * 20}", Config.of({}))


def test_a_context_is_no_larger_than_llama_cpp_counts() -> None:
    require_countable(2**31 - 1)
    with pytest.raises(ModelError, match=r"llama\.cpp counts to 2147483647"):
        require_countable(2**31)
