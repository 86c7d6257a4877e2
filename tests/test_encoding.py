"""From a template's text to ids: placeholders, what is special, what is joined, where BOS stands."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.errors import ModelError
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.prompt.encoding import encode, runs, special_pattern
from alignbeam_local.prompt.message import Message
from alignbeam_local.prompt.placeholders import Part, filled, numbers_in, placeholder, within_json
from alignbeam_local.prompt.reasoning import refuse_opened_reasoning, thinking_of
from alignbeam_local.prompt.rendering import rendered, rendered_parts
from alignbeam_local.prompt.template import ChatTemplate
from tests import templates
from tests.fake_lm import fake_vocabulary

CHATML = fake_vocabulary("hello", " the", "<think>")
EOS, START, END, THINK = 259, 260, 261, 258


def own(text: str) -> Part:
    return Part(text, False)


def content(text: str) -> Part:
    return Part(text, True)


def run_list(*parts: Part, vocabulary: Vocabulary = CHATML) -> list[str | int]:
    return list(runs(parts, special_pattern(vocabulary), vocabulary))


# --- placeholders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a>{0}</a>", "<a> x \n</a>"),
        ("<a>{0}", "<a> x \n"),
    ],
)
def test_a_content_stands_as_it_is(text: str, expected: str) -> None:
    parts = filled(text.format(placeholder(0)), [" x \n"])
    assert "".join(part.text for part in parts) == expected
    assert [part.is_content for part in parts] == [False, True, False]


@pytest.mark.parametrize(
    ("trimmed", "expected"),
    [(str.strip, "x"), (str.lstrip, "x \n"), (str.rstrip, " x")],
)
def test_a_content_is_trimmed_as_its_placeholder_was(trimmed: object, expected: str) -> None:
    assert callable(trimmed)
    (_, part, _) = filled(f"[{trimmed(placeholder(0))}]", [" x \n"])
    assert part == content(expected)


def test_contents_go_by_their_numbers_and_may_come_twice() -> None:
    text = f"{placeholder(1)}|{placeholder(0)}|{placeholder(1)}"
    assert [part.text for part in filled(text, ["a", "b"]) if part.is_content] == ["b", "a", "b"]
    assert numbers_in(text) == {0, 1}
    assert numbers_in("none") == set()


@pytest.mark.parametrize(("ensure_ascii", "expected"), [(False, 'é\\"\\n'), (True, '\\u00e9\\"\\n')])
def test_a_content_within_json_is_written_as_json(ensure_ascii: bool, expected: str) -> None:
    text = json.dumps({"content": placeholder(0)}, ensure_ascii=ensure_ascii)
    marked = within_json(text, ensure_ascii=ensure_ascii)
    assert [part.text for part in filled(marked, ['é"\n']) if part.is_content] == [expected]


@settings(max_examples=30)
@given(st.text(max_size=20), st.booleans())
def test_json_with_placeholders_is_the_json_of_the_contents(said: str, ensure_ascii: bool) -> None:
    text = json.dumps([placeholder(0)], ensure_ascii=ensure_ascii)
    parts = filled(within_json(text, ensure_ascii=ensure_ascii), [said])
    assert "".join(part.text for part in parts) == json.dumps([said], ensure_ascii=ensure_ascii)


def test_json_in_json_is_written_twice() -> None:
    inner = within_json(json.dumps(placeholder(0)), ensure_ascii=True)
    outer = within_json(json.dumps(inner), ensure_ascii=True)
    text = "".join(part.text for part in filled(outer, ['"']))
    assert json.loads(json.loads(text)) == '"'


def test_a_content_that_looks_like_a_placeholder_is_none() -> None:
    (_, part, _) = filled(placeholder(0), [placeholder(7)])
    assert part == content(placeholder(7))


# --- what is special


def test_the_longest_spelling_counts_first() -> None:
    vocabulary = fake_vocabulary(control=("<a>", "<a><b>", "<end>"), eos="<end>", eot=None)
    assert [match[0] for match in special_pattern(vocabulary).finditer("<a><b><a>")] == ["<a><b>", "<a>"]


@pytest.mark.parametrize("marker", ["<|x|>", "<｜x｜>", "<|x y|>", "<think>", "</think>"])
def test_what_looks_like_a_marker(marker: str) -> None:
    assert special_pattern(CHATML).fullmatch(marker)


@pytest.mark.parametrize("text", ["<x>", "<|x", "x|>", "<|a<b|>", "<Think>", "< think>"])
def test_what_does_not(text: str) -> None:
    assert not special_pattern(CHATML).fullmatch(text)


# --- runs


def test_contents_and_the_templates_text_are_joined_between_markers() -> None:
    found = run_list(own("<|im_start|>user\n"), content("hello"), own(" the<|im_end|>\n"))
    assert found == [START, "user\nhello the", END, "\n"]


def test_a_marker_in_a_content_is_text() -> None:
    assert run_list(own("a"), content("<|im_end|>"), own("b")) == ["a<|im_end|>b"]


def test_a_marker_that_is_no_token_is_text() -> None:
    assert run_list(own("x<|unknown|>y<|im_end|>")) == ["x<|unknown|>y", END]


def test_empty_texts_leave_nothing() -> None:
    assert run_list() == run_list(own(""), content("")) == []
    assert run_list(own("<|im_start|><|im_end|>")) == [START, END]


def test_a_marker_that_is_an_ordinary_token_is_that_token() -> None:
    assert run_list(own("a<think>b")) == ["a", THINK, "b"]


# --- ids


def test_texts_and_tokens_become_ids_in_order() -> None:
    assert encode([START, "hello the", END, "\n"], CHATML) == [START, 256, 257, END, 10]


def test_no_text_becomes_a_special_token() -> None:
    for text in ("<think>", "a<think>b", "<|im_end|>"):
        ids = encode([text], CHATML)
        assert CHATML.pieces(ids) == text.encode()
        assert not {EOS, START, END, THINK} & set(ids)


def test_each_text_begins_with_the_space_that_llama_cpp_puts_there() -> None:
    vocabulary = fake_vocabulary(" a", " b", space_prefix=True)
    start = next(token for token in vocabulary.control_tokens if vocabulary.text(token) == "<|im_start|>")
    assert encode(["a", start, "b"], vocabulary) == [256, start, 257]


@pytest.mark.parametrize("given_bos", [0, 1, 2])
def test_bos_stands_once_at_the_start(given_bos: int) -> None:
    vocabulary = fake_vocabulary(control=("<s>", "</s>"), bos="<s>", eos="</s>", eot=None, add_bos=True)
    bos = vocabulary.bos
    assert bos is not None
    assert encode([*[bos] * given_bos, "a", bos, "b"], vocabulary) == [bos, 97, bos, 98]


def test_bos_stays_as_the_template_has_it_where_the_model_adds_none() -> None:
    vocabulary = fake_vocabulary(control=("<s>", "</s>"), bos="<s>", eos="</s>", eot=None)
    assert vocabulary.bos is not None
    assert encode([vocabulary.bos, vocabulary.bos, "a"], vocabulary) == [vocabulary.bos, vocabulary.bos, 97]
    assert encode(["a"], vocabulary) == [97]


# --- rendering


def test_contents_that_are_only_read_as_parts() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    )
    assert [part for part in rendered_parts(template, [Message("user", "hi")]) if part.is_content] == [
        content("hi")
    ]


@pytest.mark.parametrize("role", ["user", "system", "assistant"])
def test_a_template_that_drops_a_message_says_whose(role: str) -> None:
    template = ChatTemplate("{{ messages[1].content }}")
    with pytest.raises(ModelError) as caught:
        rendered_parts(template, [Message(role, "a"), Message("user", "b")])  # type: ignore[arg-type]
    assert caught.value.message == f"the chat template drops the {role} message"
    assert "models.toml" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('not like this') }}", "the chat template failed: not like this"),
        ("{{ messages[9].content }}", "the chat template failed: "),
        ("{{ 1 / 0 }}", "the chat template failed: division by zero"),
        ("{{ messages }}", "the chat template writes messages in Python's notation"),
        (
            "{% for m in messages %}{{ m | string }}{% endfor %}",
            "the chat template writes messages in Python's",
        ),
    ],
)
def test_a_template_that_fails_is_an_error_of_the_model(source: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        rendered(ChatTemplate(source), [Message("user", "a")])
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("source", ["{% if %}", "{{ 'a }}", "{% for x in %}{% endfor %}"])
def test_what_is_no_template(source: str) -> None:
    with pytest.raises(ModelError, match="the chat template failed"):
        ChatTemplate(source)


def test_a_template_reaches_nothing_of_python() -> None:
    template = ChatTemplate("{{ messages.__class__.__mro__ }}{{ messages.append(1) }}")
    with pytest.raises(ModelError):
        rendered(template, [Message("user", "a")])


def test_the_date_does_not_move() -> None:
    assert ChatTemplate("{{ strftime_now('%d %b %Y') }}").render([]) == "26 Jul 2024"


# --- reasoning


@pytest.mark.parametrize(
    ("source", "thinking"),
    [
        (templates.CHATML, ("none", "")),
        (templates.QWEN3, ("silenced", "</think>")),
        (templates.DEEPSEEK_R1, ("thinks", "</think>")),
        (templates.STRIPS_HISTORY, ("thinks", "</think>")),
        (templates.DEEPSEEK_V31, ("silenced", "</think>")),
        (templates.SWITCH_IN_SYSTEM, ("silenced", "</think>")),
        (templates.DEEPSEEK_R1.replace("think>", "seed:think>"), ("thinks", "</seed:think>")),
        (templates.DEEPSEEK_R1.replace("<think>", "[THINK]"), ("thinks", "</think>")),
    ],
)
def test_who_reasons(source: str, thinking: tuple[str, str]) -> None:
    assert thinking_of(ChatTemplate(source)) == thinking


def test_a_template_that_opens_a_block_contradicts_who_says_that_it_does_not_reason() -> None:
    with pytest.raises(ModelError) as caught:
        refuse_opened_reasoning(ChatTemplate(templates.DEEPSEEK_R1))
    assert caught.value.message == (
        "the chat template begins every answer with <think>, yet models.toml says reasons = false"
    )
    assert caught.value.hint.startswith("Take that line out")


@pytest.mark.parametrize("source", [templates.CHATML, templates.QWEN3, templates.STRIPS_HISTORY])
def test_one_that_does_not_is_no_contradiction(source: str) -> None:
    refuse_opened_reasoning(ChatTemplate(source))
