"""Grammars and JSON schemas: what llama.cpp draws under them, and what cannot be one."""

import json
from typing import Any

import numpy as np
import pytest

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.llama.grammar import GrammarSampler, check_grammar
from alignbeam_local.llama.weights import LlamaWeights
from alignbeam_local.lm.grammar import grammar_of
from alignbeam_local.lm.json_schema import schema_grammar
from alignbeam_local.lm.language_model import Logits, SamplerSettings
from tests.llama_models import BYTE_TOKENS, write_tiny

END = 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> LlamaWeights:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama")
    return LlamaWeights(path, vocab_only=True)


class Walk:
    """A sampler under a grammar, over rows that are made here."""

    def __init__(
        self, weights: LlamaWeights, grammar: str, temperature: float = 1.0, **settings: Any
    ) -> None:
        self.row: Logits = np.zeros(weights.vocabulary.size, np.float32)
        chosen = SamplerSettings(temperature, 1.0, 1.0, 64, **{"seed": 0, **settings}, grammar=grammar)
        self._sampler = GrammarSampler(chosen, weights.handle, len(self.row), lambda _: self.row)
        self._pieces = weights.vocabulary

    def accepts(self, text: str) -> bool:
        """Whether it is a whole text of the grammar, byte by byte."""
        for token in (*(BYTE_TOKENS + byte for byte in text.encode()), END):
            if not np.isfinite(self._sampler.allowed(self.row)[token]):
                return False
            self._sampler.accept(token)
        return True

    def drawn(self, random: np.random.Generator, most: int = 4000) -> str:
        """A text at random; the longer it is the more it wants to close what is open."""
        text = b""
        for step in range(most):
            self.row = random.normal(0, 1, len(self.row)).astype(np.float32)
            for letter in b'"}],:':
                self.row[BYTE_TOKENS + letter] += step / 40
            self.row[END] += 8
            token = self._sampler.sample(0)
            if token == END:
                break
            text += self._pieces.piece(token)
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        self._sampler.close()


def accepted(weights: LlamaWeights, schema: Any, text: str) -> bool:
    walk = Walk(weights, schema_grammar(json.dumps(schema)))
    try:
        return walk.accepts(text)
    finally:
        walk.close()


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", 'q"\n', 1.5]}, "maxItems": 2},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["age", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        (PERSON, ['{"age": 3,"tags":[]}', '{"name":"é\\n","age":0,"tags":["a",1.5],"next":null}']),
        (PERSON, ['{"age":1,"tags":["q\\"\\n"],"next":{"age":2,"tags":[]}}']),
        ({"type": "integer", "minimum": -1, "exclusiveMaximum": 2}, ["-1", "0", "1"]),
        ({"type": ["string", "null"]}, ['""', '"a b"', "null"]),
        ({"type": "array", "prefixItems": [{"type": "null"}], "minItems": 2}, ["[null,1]", "[null, {}, []]"]),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, ["{}", '{"x":true,"y":false}']),
        ({}, ['{"a":[1,-2.5e3,"x",{}],"b":null}', "[]", "7"]),
        ({"type": "object", "properties": {"a": {}, "b": {}}}, ["{}", '{"a":1}', '{"b":1}', '{"a":1,"b":2}']),
        (
            {"type": "object", "properties": {'a"b\\': {"const": {"k": ["\t"]}}}},
            ['{"a\\"b\\\\":{"k": ["\\t"]}}'],
        ),
    ],
)
def test_what_keeps_to_a_schema_is_accepted(weights: LlamaWeights, schema: Any, texts: list[str]) -> None:
    for text in texts:
        json.loads(text)
        assert accepted(weights, schema, text), text


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (PERSON, '{"tags":[]}'),
        (PERSON, '{"age":-1,"tags":[]}'),
        (PERSON, '{"age":1,"tags":["a","a","a"]}'),
        (PERSON, '{"age":1,"tags":[],}'),
        (PERSON, '{"age":1,"tags":[],"more":1}'),
        (PERSON, '{"name":"toolong","age":1,"tags":[]}'),
        ({"type": "string"}, '"a\nb"'),  # a raw newline is no JSON
        ({"type": "string"}, "'a'"),
        ({"type": "integer"}, "01"),
        ({"type": "integer", "minimum": 1, "maximum": 5}, "6"),
        ({"type": "string", "enum": ["a", None]}, "null"),
        ({"type": "array", "items": False}, "[1]"),
    ],
)
def test_what_does_not_is_not(weights: LlamaWeights, schema: Any, text: str) -> None:
    assert not accepted(weights, schema, text)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("schema", [PERSON, {}, {"type": "array", "items": PERSON, "minItems": 1}])
def test_whatever_is_drawn_under_a_schema_parses(weights: LlamaWeights, schema: Any, seed: int) -> None:
    walk = Walk(weights, schema_grammar(json.dumps(schema)), seed=seed)
    try:
        json.loads(walk.drawn(np.random.default_rng(seed)))
    finally:
        walk.close()


def test_a_draw_that_is_accepted_is_that_of_the_chain_alone(weights: LlamaWeights) -> None:
    walk = Walk(weights, "root ::= [a-z]+", temperature=0)
    walk.row[BYTE_TOKENS + ord("q")] = 3
    walk.row[BYTE_TOKENS + ord("Q")] = 9
    assert walk._sampler.sample(0) == BYTE_TOKENS + ord("q")
    walk.close()


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ('root ::= "a', "unexpected end of input"),
        ('x ::= "a"', "'root' symbol"),
        ("root ::= other", "Undefined rule identifier 'other'"),
        ('root ::= root "a"', "left recursion"),
        ("# nothing", "none that llama.cpp reads"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "too large"),
        ('root ::= "' + "a" * 300_000 + '"', "too large"),
    ],
)
def test_what_is_no_grammar_is_a_usage_error_that_says_why(
    grammar: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=why):
        check_grammar(grammar)
    assert capfd.readouterr() == ("", ""), "llama.cpp's own printing is in the message, and nowhere else"


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{bad", "not JSON"),
        ("[" * 100_000, "too deep"),
        ("[]", "no schema"),
        ('{"type": "sting"}', "sting"),
        ('{"type": "string", "pattern": "^a"}', "pattern is not supported"),
        ('{"properties": {"a": {"not": {}}}}', "#/a: not is not supported"),
        ('{"$ref": "https://example.org/x.json"}', "must name a place in this schema"),
        ('{"$ref": "#/$defs/none"}', "there is no #/"),
        ('{"type": "integer", "maximum": 5}', "ranges"),
        ('{"type": "array", "minItems": 3, "maxItems": 1}', "minItems is over maxItems"),
        ('{"type": "array", "minItems": 3000}', "up to 2000"),
        ('{"enum": []}', "no value"),
        ('{"type": "integer", "enum": [1e999]}', "not JSON"),
        ('{"const": "\\ud800"}', "not JSON"),
        ('{"const": NaN}', "not JSON"),
        ('{"type": ["integer", "number"], "minimum": 0, "maximum": 10}', "none but minimum 0"),
        ('{"type": ["integer", "number"], "exclusiveMinimum": 0}', "none but minimum 0"),
        ('{"type": "array", "prefixItems": [{}], "items": false, "minItems": 2}', "so few items"),
        ('{"items": false, "minItems": 2}', "so few items"),
    ],
)
def test_what_no_grammar_can_hold_is_said_and_not_left_out(schema: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        schema_grammar(schema)


def test_knobs_that_would_cut_what_a_grammar_promises() -> None:
    assert grammar_of(Config()) == ""
    for other in ({"stop": "x"}, {"ignore_eos": True}, {"json_schema": "{}"}):
        with pytest.raises(UsageError, match="does not go together"):
            Config.of({"grammar": "root ::= [a-z]", **other})
    with pytest.raises(UsageError, match="nothing in it"):
        Config.of({"grammar": "  "})


def test_a_grammar_of_control_tokens_is_none() -> None:
    with pytest.raises(UsageError, match="no vocab"):
        check_grammar("root ::= <|im_end|>")
