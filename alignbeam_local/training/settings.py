"""All that a training run depends on besides the model and the data; every default's one home."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from .losses import PACT_FORMS, PactForm, Variant

Method = Literal["sft", "str", "pact", "constrained"]
StrOn = Literal["logits", "log-probs"]
Target = Literal["q", "k", "v", "o", "gate", "up", "down"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True)
class TrainingSettings:
    """The knobs of one run.

    Attributes:
        rank, alpha: of LoRA; an update is alpha / rank times B A.
        targets: the matrices of a layer that get one.
        layers: how many of the last layers are trained; 0: all.
        epochs, batch: how often each sample is seen, and how many make a step.
        clip: the largest norm of a step's gradient.
        context: tokens of the longest sample.
        save_every: steps from one checkpoint, and one look at the held-out samples, to the next.
        str_weight: λ of STR.
        str_on: what STR compares.
        str_first: the positions of an answer in which it does; None: all.
        variant, pact: PACT's form.
        max_kl: how far transformers' model may be from llama.cpp's, in nats.
    """

    method: Method
    rank: int = 8
    alpha: float = 32.0
    targets: tuple[Target, ...] = ("q", "v")
    layers: int = 8
    epochs: int = 3
    batch: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    context: int = 1024
    save_every: int = 20
    str_weight: float = 1.0
    str_on: StrOn = "logits"
    str_first: int | None = None
    variant: Variant = "paper"
    pact: PactForm = PACT_FORMS["paper"]
    max_kl: float = 0.02

    @property
    def needs_tokens(self) -> bool:
        """Whether the method has safety tokens."""
        return self.method in ("str", "pact")

    @property
    def needs_post(self) -> bool:
        """Whether the method looks at the reference without the question."""
        return self.method == "pact"

    def first_layer(self, layers: int) -> int:
        """The first that is trained, of a base of so many layers."""
        return max(layers - self.layers, 0) if self.layers else 0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "targets": list(self.targets)}
