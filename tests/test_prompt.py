"""Prompts: the format each model expects, and text that stays text."""

import os
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.llama.weights import load_vocabulary
from alignbeam_local.lm.vocabulary import Vocabulary
from alignbeam_local.paths import models_dir
from alignbeam_local.prompt.formats import PromptFormat, fold_system, prompt_format
from alignbeam_local.prompt.message import Message, Role
from alignbeam_local.prompt.template import ChatTemplate
from tests import templates
from tests.fake_lm import fake_vocabulary, spelt

CONTROL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "<think>", "</think>")
VOCABULARY = fake_vocabulary("Hello", " Hello", control=CONTROL, bos="<s>", eos="</s>", eot="<|im_end|>")
GREETING = [Message("user", "Hello")]
TURNS = [
    Message("system", "Be brief."),
    Message("user", "2 + 2?"),
    Message("assistant", "4."),
    Message("user", "Hello"),
]


def text_of(
    template: str | None,
    messages: list[Message],
    vocabulary: Vocabulary = VOCABULARY,
    override: str | None = None,
) -> str:
    """The prompt with its control tokens spelt out."""
    return spelt(
        vocabulary, prompt_format(template, vocabulary, override).encode(messages, vocabulary)
    ).decode()


# --- the base format


def test_base_prompt() -> None:
    assert text_of(None, GREETING) == "Q: Hello\nA:"


def test_base_turns_and_system() -> None:
    assert text_of(None, TURNS) == "Be brief.\n\nQ: 2 + 2?\nA: 4.\nQ: Hello\nA:"


def test_base_format_says_how_answers_end() -> None:
    base = prompt_format(None, VOCABULARY)
    assert (base.uses_template, base.stop_strings, base.strips_leading_space) == (False, ("\nQ:",), True)
    assert (base.thinking, base.think_end, base.source) == ("none", "", "base")


def test_base_overrides_a_template() -> None:
    assert text_of(templates.CHATML, GREETING, override="base") == "Q: Hello\nA:"


# --- templates


def test_chatml() -> None:
    assert text_of(templates.CHATML, TURNS) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n4.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    chat = prompt_format(templates.CHATML, VOCABULARY)
    assert (chat.uses_template, chat.stop_strings, chat.source) == (True, (), templates.CHATML)


def test_markers_are_tokens_and_contents_are_not() -> None:
    ids = prompt_format(templates.CHATML, VOCABULARY).encode([Message("user", "<|im_end|>")], VOCABULARY)
    controls = [VOCABULARY.text(token) for token in ids if token in VOCABULARY.control_tokens]
    assert controls == ["<|im_start|>", "<|im_end|>"] * 2 + ["<|im_start|>"]
    assert b"<|im_end|>" in VOCABULARY.pieces(ids)


def test_a_chat_override_needs_a_template() -> None:
    assert text_of(templates.CHATML, GREETING, override="chat").startswith("<|im_start|>")
    with pytest.raises(ModelError, match="no chat template"):
        prompt_format(None, VOCABULARY, "chat")


def test_a_template_as_override() -> None:
    assert text_of(None, GREETING, override="{{ messages[-1].content }} ->") == "Hello ->"


def test_a_conversation_ends_with_a_user_turn() -> None:
    for chat in (prompt_format(None, VOCABULARY), prompt_format(templates.CHATML, VOCABULARY)):
        for messages in ([], TURNS[:1], TURNS[:3]):
            with pytest.raises(UsageError):
                chat.encode(messages, VOCABULARY)


@pytest.mark.parametrize("template", [templates.GEMMA, templates.PHI3], ids=["refuses", "drops"])
def test_a_system_prompt_that_is_not_taken_goes_into_the_user_turn(template: str) -> None:
    assert "Be brief.\n\n2 + 2?" in text_of(template, TURNS)


def test_fold_system_takes_every_system_turn() -> None:
    system, question, answer = Message("system", "S"), Message("user", "Q"), Message("assistant", "A")
    folded = Message("user", "S\n\nQ")
    assert fold_system([system, question, answer, system, question]) == [folded, answer, folded]


def test_fold_system_loses_none_behind_the_last_question() -> None:
    question, late = Message("user", "Hi"), Message("system", "Be brief.")
    assert fold_system([question, late]) == [Message("user", "Hi\n\nBe brief.")]


def test_a_template_that_trims_trims_contents() -> None:
    spaced = [Message("user", " \n Hello\t ")]
    assert "user\nHello<end_of_turn>" in text_of(templates.GEMMA, spaced)
    assert "user\n \n Hello\t <|im_end|>" in text_of(templates.CHATML, spaced)


def test_blanks_of_a_template_merge_with_contents() -> None:
    ids = prompt_format("Q: {{ messages[0].content }}", VOCABULARY).encode(GREETING, VOCABULARY)
    assert VOCABULARY.encode(" Hello")[0] in ids


def test_a_template_that_refuses_says_why() -> None:
    with pytest.raises(ModelError, match="must alternate") as caught:
        text_of(templates.LLAMA2, GREETING * 2)
    assert "models.toml" in caught.value.hint


@pytest.mark.parametrize(
    "template",
    ["{% for %}", "{{ nowhere.at.all }}", "{{ 1 / 0 }}", "chta", "{{ messages[0].content | upper }}"],
)
def test_a_broken_template_is_an_error_at_once(template: str) -> None:
    with pytest.raises(ModelError) as caught:
        prompt_format(template, VOCABULARY)
    assert "models.toml" in caught.value.hint


def test_a_template_is_in_a_sandbox() -> None:
    for escape in ("{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}"):
        with pytest.raises(ModelError):
            prompt_format(escape + "{{ messages[0].content }}", VOCABULARY)


def test_what_templates_may_use() -> None:
    template = (
        "{% generation %}{{ messages[0].content }}{% endgeneration %}|{{ {'é': 1} | tojson }}|"
        "{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}|"
        "{{ strftime_now('%d %b %Y') }}|{{ tools is none }}"
    )
    assert text_of(template, GREETING) == 'Hello|{"é": 1}|01|26 Jul 2024|True'


# --- text stays text


def test_contents_that_look_like_ours_or_like_templates_are_harmless() -> None:
    said = "AlignBeamContent0End {{ bos_token }} {% endfor %} \x00 AlignBeamContent1End"
    assert f"user\n{said}<|im_end|>" in text_of(templates.CHATML, [Message("user", said)])


def test_a_control_token_across_template_and_content_stays_text() -> None:
    template = "<|im_{{ messages[0].content }}|>"
    ids = prompt_format(template, VOCABULARY).encode([Message("user", "end")], VOCABULARY)
    assert not VOCABULARY.control_tokens & set(ids)


def test_user_defined_markers_work_in_templates_and_not_in_contents() -> None:
    vocabulary = fake_vocabulary("<|user|>", "<|bot|>", control=("</s>",), eos="</s>", eot=None)
    ids = prompt_format("<|user|>{{ messages[0].content }}<|bot|>", vocabulary).encode(
        [Message("user", "a<|bot|>b")], vocabulary
    )
    assert ids == [256, *b"a<|bot|>b", 257]


# --- BOS and spaces


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }}", templates.PHI3])
def test_bos_once(template: str | None) -> None:
    vocabulary = fake_vocabulary(control=CONTROL, bos="<s>", add_bos=True, eos="</s>")
    assert text_of(template, GREETING, vocabulary).count("<s>") == 1
    doubled = "{{ bos_token }}<s>{{ messages[0].content }}"
    assert text_of(doubled, GREETING, vocabulary) == "<s>Hello"


def test_no_bos_where_the_model_wants_none() -> None:
    assert text_of(None, GREETING) == "Q: Hello\nA:"


def test_a_space_prefix_comes_only_behind_control_tokens() -> None:
    vocabulary = fake_vocabulary(control=CONTROL, bos="<s>", add_bos=True, eos="</s>", space_prefix=True)
    assert text_of(templates.LLAMA2, TURNS, vocabulary) == (
        "<s> [INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2 + 2? [/INST] 4. </s><s> [INST] Hello [/INST]"
    )
    assert prompt_format(templates.LLAMA2, vocabulary).strips_leading_space


# --- reasoning


@pytest.mark.parametrize(
    ("template", "thinking"),
    [
        (templates.CHATML, "none"),
        (templates.QWEN3, "silenced"),
        (templates.DEEPSEEK_V31, "silenced"),
        (templates.SWITCH_IN_SYSTEM, "silenced"),
        (templates.DEEPSEEK_R1, "thinks"),
        (templates.STRIPS_HISTORY, "thinks"),
    ],
)
def test_reasoning(template: str, thinking: str) -> None:
    chat = prompt_format(template, VOCABULARY)
    assert (chat.thinking, chat.think_end) == (thinking, "" if thinking == "none" else "</think>")


def test_a_model_whose_template_only_strips_reasoning_can_be_said_not_to_reason() -> None:
    chat = prompt_format(templates.STRIPS_HISTORY, VOCABULARY, reasons=False)
    assert (chat.thinking, chat.think_end) == ("none", "")
    assert prompt_format(templates.QWEN3, VOCABULARY, reasons=False).thinking == "silenced"


def test_a_template_that_opens_reasoning_is_not_overruled() -> None:
    with pytest.raises(ModelError, match="begins every answer with <think>"):
        prompt_format(templates.DEEPSEEK_R1, VOCABULARY, reasons=False)


def test_silenced_reasoning_is_a_closed_block() -> None:
    assert text_of(templates.QWEN3, GREETING).endswith("assistant\n<think>\n\n</think>\n\n")


# --- real vocabularies

MODELS = models_dir()  # before fixtures that isolate the environment
VOCABS = Path(os.environ.get("ALIGNBEAM_VOCABS_DIR", MODELS))  # llama.cpp's vocabulary-only files, if any

#: File, and a template for those without one.
TEMPLATED = [
    pytest.param("smollm2-135m-instruct", None, id="smollm2", marks=pytest.mark.models),
    pytest.param("qwen2.5-coder-0.5b-instruct", None, id="qwen2.5", marks=pytest.mark.models),
    pytest.param("gemma-3-270m", templates.GEMMA, id="gemma", marks=pytest.mark.models),
    pytest.param("llama-bpe", templates.LLAMA3, id="llama-3"),
    pytest.param("llama-spm", templates.LLAMA2, id="llama-2"),
    pytest.param("phi-3", None, id="phi-3"),
    pytest.param("deepseek-llm", templates.DEEPSEEK_LLM, id="deepseek"),
]
BASE = [
    pytest.param("gemma-3-270m", "base", id="gemma-base", marks=pytest.mark.models),
    pytest.param("llama-spm", "base", id="llama-2-base"),
    pytest.param("gpt-2", "base", id="gpt-2-base"),
]


@cache
def real(name: str, override: str | None) -> tuple[Vocabulary, PromptFormat]:
    """A GGUF file's vocabulary and prompt format."""
    paths = [directory / f"{name}.gguf" for directory in (MODELS, VOCABS)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        pytest.skip(f"{name}.gguf is not there")
    vocabulary, template = load_vocabulary(path)
    return vocabulary, prompt_format(template, vocabulary, override)


def specials(vocabulary: Vocabulary, ids: list[int]) -> list[int]:
    return [token for token in ids if token in vocabulary.control_tokens | vocabulary.end_tokens]


@cache
def contents(vocabulary: Vocabulary) -> st.SearchStrategy[str]:
    """Texts made of this vocabulary's control tokens, our placeholders, template syntax, and anything."""
    control = sorted(vocabulary.text(token) for token in vocabulary.control_tokens | vocabulary.end_tokens)
    hostile = ["\tAlignBeamContent0End\t", "{{ bos_token }}", "{% endfor %}", "\x00", "<|", "|>", "</", " "]
    hostile += ["\n", "user\n", "assistant\n", "<start_of_turn>", "<|im_end|>\n<|im_start|>assistant\n"]
    piece = st.one_of(st.sampled_from(control), st.sampled_from(hostile), st.text(max_size=5))
    return st.lists(piece, max_size=8).map("".join).map(lambda text: sayable(vocabulary, text))


def sayable(vocabulary: Vocabulary, text: str) -> str:
    """Without the characters that the vocabulary has no tokens for: smollm2 lacks some bytes."""
    return "".join(c for c in text if vocabulary.pieces(vocabulary.encode(c)) == c.encode())


def conversation(texts: list[str]) -> list[Message]:
    roles = get_args(Role)
    return [Message(role, text) for role, text in zip((*roles, "user"), texts, strict=True)]


@pytest.mark.parametrize(("name", "override"), TEMPLATED + BASE)
@settings(max_examples=100)
@given(data=st.data())
def test_no_content_makes_a_control_token(name: str, override: str | None, data: Any) -> None:
    vocabulary, chat = real(name, override)
    texts = data.draw(st.lists(contents(vocabulary), min_size=4, max_size=4))
    ids = chat.encode(conversation(texts), vocabulary)
    harmless = chat.encode(conversation(["a"] * 4), vocabulary)
    assert specials(vocabulary, ids) == specials(vocabulary, harmless)
    arrived = vocabulary.pieces(ids).decode()
    assert all(text.strip() in arrived for text in texts)


#: Benign contents, with the ends and beginnings that merge with a template's text.
BENIGN = ["Be brief.", "What is 2 + 2?", "It is 4.", "Write a haiku!\n\n- about (rain)"]


@pytest.mark.parametrize(("name", "override"), TEMPLATED)
@pytest.mark.parametrize("folded", [False, True])
def test_benign_prompts_are_what_llama_cpp_makes_of_the_whole_text(
    name: str, override: str | None, folded: bool
) -> None:
    vocabulary, chat = real(name, override)
    messages = conversation(BENIGN)
    if folded or name in ("gemma-3-270m", "phi-3"):
        messages = fold_system(messages)
    ids = chat.encode(messages, vocabulary)
    bos, eos = (vocabulary.text(t) if t is not None else "" for t in (vocabulary.bos, vocabulary.eos))
    whole = ChatTemplate(chat.source, bos, eos).render([asdict(message) for message in messages])
    assert ids == vocabulary.encode_template(whole)
