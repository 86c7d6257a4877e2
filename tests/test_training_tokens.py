"""Safety tokens: of a file, with what it must not be; and those that rejections begin with."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.errors import UsageError
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.training.token_set import TokenSet, read_rejections, read_tokens, salient_tokens
from tests import templates
from tests.fake_lm import fake_vocabulary

WORDS = ("I", " can", " cannot", "Sorry", ", ", ".", " help", "'t")
CONTROL = ("<|im_start|>", "<|im_end|>")
VOCABULARY = fake_vocabulary(*WORDS, control=CONTROL, eos="<|im_end|>", eot="<|im_end|>")
LAYOUT = prompt_format(templates.CHATML, VOCABULARY)


def token(text: str, d: float) -> dict[str, Any]:
    [found] = VOCABULARY.encode(text)
    return {"id": found, "text": text, "d": d}


def written(tmp_path: Path, tokens: Any) -> Path:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"made_by": "a test", "tokens": tokens}))
    return path


def test_tokens_of_a_file_and_their_differences(tmp_path: Path) -> None:
    rows = [token("Sorry", 0.3), token(" cannot", 0.2)]
    found = read_tokens(written(tmp_path, rows), VOCABULARY)
    assert found == TokenSet((rows[0]["id"], rows[1]["id"]), (0.3, 0.2))


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        ([], "tokens: .*at least 1"),
        ([{"id": 3, "text": "x"}], r"tokens\.0\.d"),
        ([token("I", 0.3), token("I", 0.2)], "names a token twice"),
        ([{**token("I", 0.3), "text": "You"}], "is 'You' there and 'I' in this model"),
        ([{"id": 10**6, "text": "I", "d": 1}], "token 1000000 is 'I' there and ''"),
        ([token("I", -0.3)], "no d is above 0"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, tokens: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_tokens(written(tmp_path, tokens), VOCABULARY)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text("I, can")
    with pytest.raises(UsageError, match="is no JSON"):
        read_tokens(path, VOCABULARY)


def test_salient_tokens_stand_in_two_first_sentences_and_have_a_letter() -> None:
    texts = ["Sorry, I cannot help.", "I cannot help. I can, I can", "Sorry, I can't.", "Sorry, "]
    found = salient_tokens(texts, LAYOUT, VOCABULARY)
    words = [VOCABULARY.piece(token).decode() for token in found.ids]
    # ", " has no letter; " can" stands in one first sentence only.
    assert words == ["I", "Sorry", " cannot", " help"]
    assert set(found.differences) == {1.0}


def test_rejections_that_share_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="share no word"):
        salient_tokens(["Sorry", " cannot"], LAYOUT, VOCABULARY)


def test_the_shipped_rejections_are_several_and_begin_alike(tmp_path: Path) -> None:
    texts = read_rejections()
    assert len(texts) >= 10
    assert salient_tokens(texts, LAYOUT, VOCABULARY).ids
    (tmp_path / "one.txt").write_text("Sorry\n\n")
    with pytest.raises(UsageError, match="fewer than two"):
        read_rejections(tmp_path / "one.txt")
