"""What `alignbeam tokens find` and `tokens salient` do: models opened, asked, and a file of tokens made."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignbeam_local.config import Config
from alignbeam_local.errors import UsageError
from alignbeam_local.knobs.values import LoraSpec
from alignbeam_local.models.registry import Registry
from alignbeam_local.settings import resolve

from ..console.terminal import say
from ..console.waiting import tracked

if TYPE_CHECKING:
    from alignbeam_local.engine.open_models import Model
    from alignbeam_local.tokens.find import Found
    from alignbeam_local.tokens.forcing import ForcedAnswer, PromptForm, Reader
    from alignbeam_local.tokens.token_file import Source, TokenFile

#: Answers that are made at once.
_AT_ONCE = 8


@dataclass(frozen=True)
class Request:
    """What the command's options said.

    Attributes:
        base: the model that the safe one is held against; None: the safe one's own file.
        lora: adapters on that one, or else, if `is_safe_adapted`, on the safe one.
        form: how that one reads the requests.
        answer_tokens: the longest answer.
    """

    safe: str
    base: str | None
    lora: Sequence[str]
    form: "PromptForm"
    prompts: Path | None
    limit: int
    answer_tokens: int
    count: int
    every_answer: bool
    threads: str | None
    context: str | None
    is_safe_adapted: bool = False


def find(request: Request) -> "tuple[TokenFile, TokenFile]":
    """Tokens by the difference of two models, and as many at random.

    Raises:
        UsageError, ModelError: a model or a file that can't be; two models that are one; no refusal.
    """
    from alignbeam_local.refusals.detector import declines
    from alignbeam_local.tokens.find import by_difference, control_of
    from alignbeam_local.tokens.forcing import forced_answers, require_one_vocabulary

    if request.base in (None, request.safe) and not request.lora and request.form == "template":
        raise UsageError(
            "one model is held against itself",
            "Name a second one, or --lora FILE, or --base-prompt raw: without its template.",
        )
    with _opened(request) as (safe, base):
        require_one_vocabulary(safe.lm.vocabulary, base.lm.vocabulary)
        prompts = _fitting(request, [(safe, "template"), (base, request.form)])
        readers = _reader(safe, "template"), _reader(base, request.form)
        answers = forced_answers(*readers, prompts, max_tokens=request.answer_tokens)
        found = by_difference(
            tracked(answers, "answering", len(prompts)),
            safe.lm.vocabulary,
            _source(safe, "template"),
            _source(base, request.form),
            count=request.count,
            declines=None if request.every_answer else declines,
        )
        _tell_left_out(found)
        return found.file, control_of(found.file, safe.lm.vocabulary, seed=0)


def salient(request: Request, *, own: bool, templates: bool) -> "tuple[TokenFile, TokenFile]":
    """Tokens that a model's own rejections share, or the templates, or both; and as many at random."""
    from alignbeam_local.refusals.detector import declines
    from alignbeam_local.tokens.find import by_rejections, control_of
    from alignbeam_local.tokens.forcing import forced_answers
    from alignbeam_local.tokens.salient import rejection_templates

    with _opened(request) as (safe, _):
        vocabulary, space = safe.lm.vocabulary, " " if safe.format.strips_leading_space else ""
        said: Iterable[ForcedAnswer] = ()
        if own:
            prompts = _fitting(request, [(safe, "template")])
            answers = forced_answers(
                _reader(safe, "template"), None, prompts, max_tokens=request.answer_tokens
            )
            said = tracked(answers, "answering", len(prompts))
        found = by_rejections(
            said,
            [vocabulary.encode(space + text) for text in rejection_templates()] if templates else [],
            vocabulary,
            _source(safe, "template"),
            count=request.count,
            declines=declines,
        )
        _tell_left_out(found)
        return found.file, control_of(found.file, vocabulary, seed=0)


@contextmanager
def _opened(request: Request) -> "Iterator[tuple[Model, Model]]":
    from alignbeam_local.cancellation import Cancellation
    from alignbeam_local.engine.open_reader import open_two

    registry, cancellation = Registry.load(), Cancellation()
    config = _config(request, registry)
    with cancellation.on_interrupt(), open_two(config, registry, _AT_ONCE, cancellation) as (plain, adapted):
        yield (adapted, plain) if request.is_safe_adapted else (plain, adapted)


def _config(request: Request, registry: Registry) -> Config:
    """One as an anchor, which has no adapters, and the other as a draft, which may have."""
    both = request.safe, request.base or request.safe
    plain, adapted = reversed(both) if request.is_safe_adapted else both
    flags = {
        "anchor": plain,
        "draft": adapted,
        "lora": list(request.lora) or "none",
        "threads": request.threads,
        "context": request.context or "512",
    }
    return resolve(flags, registry, os.environ).config


def _reader(model: "Model", form: "PromptForm") -> "Reader":
    from alignbeam_local.tokens.forcing import Reader, encoder

    return Reader(model.lm, encoder(form, model.format, model.lm.vocabulary))


def _source(model: "Model", form: "PromptForm") -> "Source":
    from alignbeam_local.tokens.token_file import Source

    card = model.card
    names = tuple(LoraSpec(adapter.name, adapter.scale).text for adapter in card.adapters)
    return Source(name=card.name, weights_sha256=card.weights_sha256, adapters=names, prompt=form)


def _fitting(request: Request, models: "Sequence[tuple[Model, PromptForm]]") -> list[str]:
    """The requests that leave room for an answer in each model's context.

    Raises:
        UsageError: none does; or as `_requests`.
    """
    readers = [(_reader(model, form), model.context) for model, form in models]
    asked = _requests(request)
    fitting = [
        text
        for text in asked
        if all(len(reader.encode(text)) + request.answer_tokens <= context for reader, context in readers)
    ]
    if not fitting:
        raise UsageError("no request fits the context with its answer", "Raise --context.")
    if len(fitting) < len(asked):
        say(f"note: {len(asked) - len(fitting)} requests are longer than the context, and left out")
    return fitting


def _requests(request: Request) -> list[str]:
    """Those of the file, or harmful ones of those that ship: evenly from all topics. Raises: UsageError."""
    from alignbeam_local.heads.labelled_requests import read_requests
    from alignbeam_local.pair.prompts_file import read_prompts

    if request.prompts:
        return read_prompts(request.prompts)[: request.limit]
    harmful = [
        one.text
        for one in read_requests()
        if (one.label, one.language, one.split) == ("harmful", "en", "fit") and len(one.messages) == 1
    ]
    step = max(1, len(harmful) // request.limit)
    return harmful[::step][: request.limit]


def _tell_left_out(found: "Found") -> None:
    if left_out := found.asked - found.file.answers:
        why = "have no text" if found.file.every_answer else "do not decline"
        say(f"note: {left_out} of {found.asked} answers {why}, and are left out")
