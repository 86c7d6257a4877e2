"""What is minimised: cross-entropy, STR, PACT and constrained SFT, as pure functions.

Every array is a numpy array or a torch tensor, all of a call of one kind; torch's gradients flow through.
A row is a position of an answer: T rows of a batch, whatever answers they are of. K tokens are the safety
tokens S. Equation numbers are those of PACT (arXiv 2603.07445); STR is our reading of arXiv 2604.17210, of
which only the abstract could be had; the constrained loss is Eq. 3 of Qi et al. (arXiv 2406.05946).
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Array = Any
Variant = Literal["paper", "code"]

#: A weight of nothing, so that its logarithm is a number.
_NOTHING = 1e-30
#: What sums of probabilities may be short of a level by rounding.
_ROUNDING = 1e-6
#: Of constrained SFT: the first answer token's strength, that of the next four, and that of all others.
_BETAS = (0.5, 2.0, 0.1)


@dataclass(frozen=True)
class PactForm:
    """What PACT's paper leaves open or its authors' code does otherwise.

    Attributes:
        kl_weight: λ of Eq. 9.
        mass_weight: μ of the mass term (ours, not the paper's); 0 leaves it out.
        gate_scale: what the difference of Eq. 6 is multiplied by.
        gated_positions: N of Eq. 8: positions from the answer's start in which the gate is whole.
        decay: τ of Eq. 8, in positions.
        temperature: of both distributions of the KL, which is multiplied by its square.
        level: the probability that the proxy of Eq. 5 must reach.
    """

    kl_weight: float = 3.0
    mass_weight: float = 0.0
    gate_scale: float = 1.0
    gated_positions: int = 8
    decay: float = 8.0
    temperature: float = 1.0
    level: float = 0.9


#: The paper's N may be anything from 8 to 128, and it gives no τ: both are its authors' code's.
PACT_FORMS: dict[Variant, PactForm] = {
    "paper": PactForm(),
    "code": PactForm(kl_weight=1.0, gate_scale=2.0, temperature=2.0),
}


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last axis."""
    return logits - _log_sum(logits)[..., None]


def cross_entropy(log_probs: Array, labels: Array) -> Array:
    """The mean over T rows of -log p(label).

    Args:
        log_probs: (T, vocabulary).
        labels: (T,) ids.
    """
    return -picked(log_probs, labels).mean()


def picked(log_probs: Array, labels: Array) -> Array:
    """(T,): of each row the value at its label."""
    return log_probs[_library(log_probs).arange(len(labels)), labels]


# --- STR


def str_loss(tuned: Array, reference: Array, positions: Array, first: int | None = None) -> Array:
    """The mean over rows and tokens of the squared difference of logits.

    Args:
        tuned, reference: (T, K) logits of the tokens of S in the same context; or log-probabilities, so that
            other tokens cannot rise for nothing.
        positions: (T,) places in the answer, from 0.
        first: only rows at the first so many positions count; without any the loss is 0.
    """
    squared = ((tuned - reference) ** 2).mean(-1)
    if first is None:
        return squared.mean()
    counts = positions < first
    return (squared * counts).sum() / max(int(counts.sum()), 1)


# --- PACT


def token_weights(differences: Array, variant: Variant) -> Array:
    """V of Eq. 3: (K,) weights, none below 0.

    Args:
        differences: (K,) values d(v) of Eq. 2.
        variant: the paper's weights are d(v); the code's are standardised over the K, then L2-normalised.
    """
    weights = differences
    if variant == "code":
        centred = differences - differences.mean()
        weights = centred / max(float((centred**2).sum()) ** 0.5, _NOTHING)
    return _library(weights).clip(weights, 0, None)


def weighted_reference(logits: Array, weights: Array, temperature: float = 1.0) -> Array:
    """log q of Eq. 3: (T, K), where q is in proportion to the reference's probability times the weight."""
    xp = _library(logits)
    return log_softmax(logits / temperature + xp.log(xp.clip(weights, _NOTHING, None)))


def weighted_kl(tuned: Array, log_q: Array, temperature: float = 1.0) -> Array:
    """Eq. 4: the mean over rows of the KL of q over the tuned model restricted to S, which has no weights.

    It is not zero at the reference unless the weights are equal, and does not see a shift of all K logits.

    Args:
        tuned: (T, K) logits of the tokens of S.
        log_q: (T, K), of `weighted_reference`.
        temperature: the KL is multiplied by its square, as where models are distilled.
    """
    log_p = log_softmax(tuned / temperature)
    q = _library(log_q).exp(log_q)
    return temperature**2 * (q * (log_q - log_p)).sum(-1).mean()


def proxy(logits: Array, level: float = 0.9) -> Array:
    """Eq. 5: (T,) the smallest k whose k largest probabilities within S reach the level, over K."""
    xp = _library(logits)
    probabilities = xp.exp(log_softmax(logits))
    ascending = xp.sort(-probabilities, -1)
    ordered = -(ascending if xp.__name__ == "numpy" else ascending.values)
    short = (xp.cumsum(ordered, -1) < level - _ROUNDING).sum(-1)
    return (short + 1) / logits.shape[-1]


def gate(proxy_tuned: Array, proxy_post: Array, scale: float = 1.0) -> Array:
    """Eq. 6: (T,) how much of the reference without the question is taken; 1/2 where both are as sure."""
    return 1 / (1 + _library(proxy_tuned).exp(-scale * (proxy_tuned - proxy_post)))


def decayed(gates: Array, positions: Array, gated_positions: int, decay: float) -> Array:
    """Eq. 8: the gates as they are at the first N positions, then falling by e every τ positions."""
    xp = _library(gates)
    return gates * xp.exp(-xp.clip(positions - gated_positions, 0, None) / decay)


def mixed_reference(full: Array, post: Array, gates: Array) -> Array:
    """Eq. 7: (T, K) logits between the reference with the question and the one without it."""
    return (1 - gates)[:, None] * full + gates[:, None] * post


def log_mass(log_probs: Array, tokens: Array) -> Array:
    """(T,): the log of the probability that lies on S.

    Args:
        log_probs: (T, vocabulary), normalised.
        tokens: (K,) ids of S, or what takes all columns.
    """
    return _log_sum(log_probs[:, tokens])


def mass_term(tuned: Array, reference: Array) -> Array:
    """The mean over rows of the KL of the two-way split {S, rest}: what Eq. 4 does not see (ours).

    Args:
        tuned, reference: (T,) logs of the probability on S.
    """
    xp = _library(tuned)
    own, others = (xp.clip(log, None, -_ROUNDING) for log in (tuned, reference))
    rest_own, rest_others = (xp.log(-xp.expm1(log)) for log in (own, others))
    return (xp.exp(others) * (others - own) + xp.exp(rest_others) * (rest_others - rest_own)).mean()


def pact_reference(tuned: Array, full: Array, post: Array, positions: Array, form: PactForm) -> Array:
    """Eq. 5 to 8 together: (T, K) logits of the mixed reference; it carries no gradient.

    Args:
        tuned: (T, K) logits of S of the model in training.
        full, post: the same of the reference, with the question and without.
        positions: (T,) places in the answer, from 0.
    """
    fixed = tuned.detach() if hasattr(tuned, "detach") else tuned
    whole = gate(proxy(fixed, form.level), proxy(post, form.level), form.gate_scale)
    return mixed_reference(full, post, decayed(whole, positions, form.gated_positions, form.decay))


def pact_kl(
    tuned: Array, full: Array, post: Array, positions: Array, *, weights: Array, form: PactForm
) -> Array:
    """Eq. 4 against the mixed reference; arguments as of `pact_reference`, and the (K,) weights."""
    reference = pact_reference(tuned, full, post, positions, form)
    return weighted_kl(tuned, weighted_reference(reference, weights, form.temperature), form.temperature)


# --- token-wise constrained SFT


def constrained_loss(tuned: Array, reference: Array, positions: Array, num_answers: int) -> Array:
    """Eq. 3 of Qi et al., a sum over an answer's tokens and a mean over answers.

    Where both models are the same its gradient is that of -log p, whatever the strength.

    Args:
        tuned, reference: (T,) log-probabilities of the labels.
        positions: (T,) places in the answer, from 0.
    """
    xp = _library(tuned)
    first, next_four, others = _BETAS
    betas = xp.where(positions == 0, first, xp.where(positions < 5, next_four, others))
    log_sigmoid = -xp.logaddexp(xp.zeros_like(tuned), -betas * (tuned - reference))
    return -(2 / betas * log_sigmoid).sum() / num_answers


# --- both libraries


def _library(array: Array) -> Any:
    """numpy or torch: what both call the same is called on this."""
    return import_module(type(array).__module__.partition(".")[0])


def _log_sum(logits: Array) -> Array:
    """The log of the sum of exponentials over the last axis."""
    xp = _library(logits)
    return xp.logaddexp.reduce(logits, axis=-1) if xp.__name__ == "numpy" else xp.logsumexp(logits, -1)
