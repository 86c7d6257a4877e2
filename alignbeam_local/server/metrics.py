"""Counts for Prometheus: how many, how long, refused by whom; no text of anybody's."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..result import Result
from .protocol.answer_object import outcome
from .work.engine_thread import Health

_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_PHASES = ("draft_prefill_ms", "anchor_prefill_ms", "mix_ms", "complete_ms", "judge_ms")


class Metrics:
    """What one server has done since its start."""

    def __init__(self, health: Callable[[], Health]) -> None:
        """`health` is asked whenever somebody reads the figures."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "alignbeam_requests", "Requests by how they ended.", ("model", "outcome"), registry=registry
        )
        self._refusals = Counter(
            "alignbeam_refusals", "Refusals by who made them.", ("by",), registry=registry
        )
        self._tokens = Counter("alignbeam_tokens", "Tokens of the draft.", ("kind",), registry=registry)
        self._phases = Counter("alignbeam_phase_seconds", "Seconds by phase.", ("phase",), registry=registry)
        self._seconds = Histogram(
            "alignbeam_request_seconds", "From a request to its end.", buckets=_SECONDS, registry=registry
        )
        for name, about, field in (
            ("alignbeam_queue_length", "Requests that wait for a slot.", "waiting"),
            ("alignbeam_running", "Answers in the making.", "running"),
            ("alignbeam_last_step_seconds", "Since the engine last did something.", "last_step_s"),
        ):
            gauge = Gauge(name, about, registry=registry)
            gauge.set_function(partial(_field_of, health, field))

    def count(self, model: str, ended: str, seconds: float, result: Result | None = None) -> None:
        """A request has ended; `ended` says how where there is no result."""
        self._requests.labels(model, outcome(result) if result else ended).inc()
        self._seconds.observe(seconds)
        if result is None:
            return
        if result.refusal.by:
            self._refusals.labels(result.refusal.by).inc()
        self._tokens.labels("prompt").inc(result.usage.prompt_tokens)
        self._tokens.labels("completion").inc(result.usage.completion_tokens)
        for phase in _PHASES:
            self._phases.labels(phase.removesuffix("_ms")).inc(getattr(result.timings, phase) / 1000)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


def _field_of(health: Callable[[], Health], field: str) -> float:
    return float(getattr(health(), field))
