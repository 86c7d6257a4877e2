"""What a training takes from the base model as llama.cpp runs it: ids, sizes, and rows to compare with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..cancellation import Cancellation
from ..config import Config
from ..engine.loader import Loader
from ..engine.open_models import Model
from ..errors import UsageError
from ..lm.language_model import LanguageModel
from ..lm.vocabulary import Vocabulary
from ..machine.context_size import ContextSize
from ..models.gguf_header import GgufHeader, require_model
from ..models.hashes import model_sha256
from ..models.registry import Registry
from ..prompt.answers import answer_start
from ..prompt.formats import PromptFormat
from ..result import ModelCard
from ..tokens.salient import rejection_templates
from .adapter.adapter_gguf import BaseModel
from .adapter.matrices import require_fit
from .dequantised import Probe
from .need import ModelSize
from .request import TrainingRequest
from .samples import Conversation, Sample, encoded
from .token_set import TokenSet, of_file, of_rejections, read_rejections

#: On how many samples transformers is compared with llama.cpp, and on how many tokens of each answer.
_PROBES, _PROBE_TOKENS = 4, 8


@dataclass(frozen=True)
class Base:
    """The base model, and all that was read with it.

    Attributes:
        start: the ids that stand before an answer without its question.
        tokens: S; None where the method has none.
        probes: what llama.cpp makes of the beginnings of some answers.
    """

    card: ModelCard
    model: BaseModel
    size: ModelSize
    samples: list[Sample]
    held_out: list[Sample]
    start: list[int]
    tokens: TokenSet | None
    probes: list[Probe]


def read_base(
    request: TrainingRequest,
    config: Config,
    registry: Registry,
    rows: Sequence[Conversation],
    held_out: Sequence[Conversation],
) -> Base:
    """Open the draft of a configuration, encode the data by its vocabulary, and close it.

    Raises:
        UsageError, ModelError: it is not there, damaged or of an architecture that no adapter is exported
            for; a row does not fit; the tokens are of another vocabulary.
    """
    loader = Loader(config, registry, Cancellation())
    context = request.settings.context
    size = ContextSize(1, context, context)
    try:
        file = loader.find("draft")
        header = require_model(file.path)
        _require_context(header, context)
        model = BaseModel(file.path, model_sha256(file.path))
        require_fit(request.settings, model, header.block_count)
        loader.place({"draft": (file.path, size)})
        list(loader.prepare(file.path))
        return _read(request, loader.open("draft", file, size), (model, header), rows, held_out)
    finally:
        loader.close()


def _read(
    request: TrainingRequest,
    opened: Model,
    file: tuple[BaseModel, GgufHeader],
    rows: Sequence[Conversation],
    held_out: Sequence[Conversation],
) -> Base:
    layout, vocabulary, context = opened.format, opened.lm.vocabulary, request.settings.context
    samples = encoded(request.data, rows, layout, vocabulary, context)
    return Base(
        card=opened.card,
        model=file[0],
        size=_model_size(*file),
        samples=samples,
        held_out=encoded(request.held_out, held_out, layout, vocabulary, context) if request.held_out else [],
        start=answer_start(layout, vocabulary),
        tokens=_tokens(request, layout, vocabulary, opened.card.name)
        if request.settings.needs_tokens
        else None,
        probes=[_probe(opened.lm, sample) for sample in samples[:_PROBES]],
    )


def _tokens(request: TrainingRequest, layout: PromptFormat, vocabulary: Vocabulary, name: str) -> TokenSet:
    """S: PACT's weights are measured, so it has no tokens without a file."""
    if request.tokens:
        is_pact = request.settings.method == "pact"
        return of_file(request.tokens, vocabulary, name, measured=is_pact)
    if request.settings.method == "pact":
        raise UsageError(
            "--method pact needs safety tokens with their d(v)", "Name their file: --tokens FILE."
        )
    texts = read_rejections(request.rejections) if request.rejections else rejection_templates()
    return of_rejections(texts, layout, vocabulary)


def _probe(lm: LanguageModel, sample: Sample) -> Probe:
    first, end = len(sample.prompt), len(sample.prompt) + min(_PROBE_TOKENS, len(sample.answer) - 1)
    rows = []
    for count in range(first, end + 1):
        lm.set_tokens({0: sample.ids[:count]})
        rows.append(lm.logits(0).copy())
    return Probe(sample.ids[:end], first - 1, np.array(rows))


def _require_context(header: GgufHeader, context: int) -> None:
    if context > header.context_length > 0:
        raise UsageError(
            f"--context is {context}, and the model was made for {header.context_length} tokens",
            "Lower --context.",
        )


def _model_size(model: BaseModel, header: GgufHeader) -> ModelSize:
    a_layer = sum(count for name, count in model.elements.items() if name.startswith("blk.0."))
    return ModelSize(header.parameters, a_layer, model.width, header.vocabulary_size, header.block_count)
