"""Safety tokens: of a file, with what it must not be; and those that rejections begin with."""

from pathlib import Path
from typing import Any

import pytest

from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.prompt.formats import prompt_format
from alignbeam_local.tokens.salient import rejection_templates
from alignbeam_local.tokens.token_file import FoundToken, Source, TokenFile, write_tokens
from alignbeam_local.training.token_set import TokenSet, of_file, of_rejections, read_rejections
from tests import templates
from tests.fake_lm import fake_vocabulary

WORDS = ("I", " can", " cannot", "Sorry", ", ", ".", " help", "'t")
CONTROL = ("<|im_start|>", "<|im_end|>")
VOCABULARY = fake_vocabulary(*WORDS, control=CONTROL, eos="<|im_end|>", eot="<|im_end|>")
LAYOUT = prompt_format(templates.CHATML, VOCABULARY)


def token(text: str, d: float) -> FoundToken:
    [found] = VOCABULARY.encode(text.encode())
    return FoundToken(id=found, text=text, d=d)


def written(tmp_path: Path, *tokens: FoundToken, **fields: Any) -> Path:
    about = {"kind": "difference", "vocabulary": VOCABULARY.fingerprint, **fields}
    safe = Source(name="safe", weights_sha256="0" * 64)
    write_tokens(tmp_path / "tokens.json", TokenFile(safe=safe, tokens=tokens, **about))
    return tmp_path / "tokens.json"


def test_tokens_of_a_file_and_their_differences(tmp_path: Path) -> None:
    rows = [token("Sorry", 0.3), token(" cannot", 0.2)]
    found = of_file(written(tmp_path, *rows), VOCABULARY, "mine", measured=True)
    assert found == TokenSet((rows[0].id, rows[1].id), (0.3, 0.2))


def test_pact_takes_measured_differences_alone(tmp_path: Path) -> None:
    path = written(tmp_path, token("Sorry", 3.0), kind="rejections")
    assert of_file(path, VOCABULARY, "mine", measured=False).ids
    with pytest.raises(UsageError, match="PACT weighs them by"):
        of_file(path, VOCABULARY, "mine", measured=True)


def test_a_file_of_another_vocabulary_or_without_a_safety_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another vocabulary than mine"):
        of_file(written(tmp_path, token("I", 1.0), vocabulary="1" * 64), VOCABULARY, "mine", measured=True)
    with pytest.raises(UsageError, match="no d is above 0"):
        of_file(written(tmp_path, token("I", -0.3)), VOCABULARY, "mine", measured=True)
    (tmp_path / "tokens.json").write_text("I, can")
    with pytest.raises(UsageError, match="is no file of tokens"):
        of_file(tmp_path / "tokens.json", VOCABULARY, "mine", measured=True)


def test_salient_tokens_stand_in_two_first_sentences_and_have_a_letter() -> None:
    texts = ["Sorry, I cannot help.", "I cannot help. I can, I can", "Sorry, I can't.", "Sorry, "]
    found = of_rejections(texts, LAYOUT, VOCABULARY)
    words = [VOCABULARY.piece(token).decode() for token in found.ids]
    # ", " has no letter; " can" stands in one first sentence only.
    assert words == ["Sorry", "I", " cannot", " help"]
    assert set(found.differences) == {1.0}


def test_rejections_that_share_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="share no word"):
        of_rejections(["Sorry", " cannot"], LAYOUT, VOCABULARY)


def test_the_shipped_rejections_are_several_and_begin_alike(tmp_path: Path) -> None:
    texts = rejection_templates()
    assert len(texts) >= 10
    assert of_rejections(texts, LAYOUT, VOCABULARY).ids
    (tmp_path / "one.txt").write_text("Sorry\n\n")
    with pytest.raises(UsageError, match="fewer than two"):
        read_rejections(tmp_path / "one.txt")
