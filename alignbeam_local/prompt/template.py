"""Jinja chat templates, rendered as Hugging Face renders them, in the same sandbox."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import ModelError
from .placeholders import within_json

#: What templates take for today (Llama 3's own default): a date that moves makes every cache stale.
TODAY = datetime(2024, 7, 26)

HINT = "Give the model another prompt format in models.toml: base, or the text of a Jinja template."


class ChatTemplate:
    """A compiled template and the special tokens' spellings that it may write."""

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        """Compile.

        Raises:
            ModelError: the text is no Jinja template.
        """
        self.source = source
        self._special = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = _environment().from_string(source)
        except (TemplateError, RecursionError) as error:
            raise _model_error(error) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        enable_thinking: bool = False,
        add_generation_prompt: bool = True,
    ) -> str:
        """The conversation as text, up to where the answer begins; or to the end of its last turn.

        Raises:
            ModelError: the template refuses this conversation, or is broken.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking,
                thinking=enable_thinking,  # what Granite and DeepSeek call it
                **self._special,
            )
        except Exception as error:  # a template is foreign code and may raise anything
            raise _model_error(error) from error


class _GenerationTag(Extension):
    """`{% generation %}` marks the answer for training; here it stands for nothing."""

    tags = {"generation"}  # noqa: RUF012 (a class attribute of jinja2's)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@cache
def _environment() -> Environment:
    """As `transformers.utils.chat_template_utils` makes it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TODAY.strftime
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers' own filter, which leaves HTML's characters as they are; placeholders stay such."""
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return within_json(text, ensure_ascii=ensure_ascii)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _model_error(error: Exception) -> ModelError:
    return ModelError(f"the chat template failed: {error or type(error).__name__}", HINT)
