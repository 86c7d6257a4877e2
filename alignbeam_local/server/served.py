"""What the server answers as: profiles, and their anchors alone; and which knobs a request may turn."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..config import Config, by_name, knobs_that
from ..engine.about_model import adapters_of
from ..errors import ModelError, UsageError
from ..knobs.method import SAFETY_KNOBS
from ..knobs.values import MOST_TOKENS
from ..models.hashes import file_sha256, model_sha256
from ..models.registry import Registry
from ..prompt.formats import fold_system
from ..prompt.message import Message
from ..result import AdapterCard
from ..roles import ROLES, ModelRole
from ..search.safety_tokens import token_path
from ..settings import near_knob
from ..tokens.token_file import read_tokens
from ..warm.found_server import FileStamp, adapter_files, records_of, stamp_of
from .protocol.chat_request import BadRequest, ChatRequest, OwnFields

log = logging.getLogger(__name__)

#: In `window` mode an answer is judged each time it has grown by so many tokens.
WINDOW_TOKENS = 64

_ORDER = {"lowest": 0, "auto": 1, "refuse": 2}
#: Knobs that a request may turn one way: whether a change from the server's value keeps it as safe.
_SAFER: dict[str, Callable[[Any, Any], bool]] = {
    "alpha": lambda own, asked: asked >= own,
    "depth": lambda own, asked: asked >= own,
    "beams": lambda own, asked: asked >= own,
    "steer": lambda own, asked: asked in ("always", own),
    "threshold": lambda own, asked: asked <= own,
    "on_unsafe": lambda own, asked: _ORDER[asked] >= _ORDER[own],
}
#: No request names what is read from the server's disk.
_FILES = ("safety_file",)
#: What sampling and length are is the client's to say.
_FREE = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "max_tokens", "stop")


class Settled(NamedTuple):
    """The knobs of one answer, and what its client should know of them."""

    config: Config
    notices: tuple[str, ...]


@dataclass(frozen=True)
class ServedModel:
    """A name of `/v1/models`.

    Attributes:
        id: its name.
        pair: the profile whose models answer.
        config: the knobs that hold where a request says nothing.
        of_anchor: the anchor alone answers; it is judged as everything else.
        created: when the file that answers was last changed, in seconds of Unix time.
        models: the names of draft, anchor and judge, and of further anchors.
        adapters: what is on the draft; an anchor alone has none.
        marks: hashes of all these files, and what is on record of the models.
        files: where these are, as they were when the server started.
        records: what was on record of these models then.
        tokens: the file of safety tokens that it goes by, if it does, as it was then.
    """

    id: str
    pair: str
    config: Config
    of_anchor: bool
    created: int
    models: Mapping[str, str | None]
    marks: tuple[str, ...] = ()
    files: Mapping[str, FileStamp] = field(default_factory=dict)
    records: Mapping[str, Any] = field(default_factory=dict)
    adapters: tuple[AdapterCard, ...] = ()
    tokens: FileStamp | None = None

    @property
    def as_object(self) -> dict[str, Any]:
        """As `/v1/models` lists it."""
        kind = "anchor" if self.of_anchor else "pair"
        own = {"kind": kind, "profile": self.config.profile, **self.models}
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": "alignbeam",
            "parent": None,
            "root": self.models["anchor" if self.of_anchor else "draft"],
            "alignbeam": {**own, "adapters": [adapter.shown for adapter in self.adapters]},
        }

    def settled(self, request: ChatRequest, *, allows_knobs: bool) -> Settled:
        """The knobs of this request's answer.

        Raises:
            BadRequest: a knob that can't be, or that would lower safety and is not allowed to.
            ModelError: the file of safety tokens is no longer the one that it stands for.
        """
        self._require_same_tokens()
        own = request.own
        if not allows_knobs:
            _refuse_unlocked(own)
        asked = _given(request.knobs, "") | _given(own.knobs, "alignbeam.")
        for name in asked:
            self._require_free(name, asked[name], allows_knobs=allows_knobs)
        wanted = {name: value for name, (_, value) in asked.items()}
        notices = self._shortened(wanted)
        changed = self._with_values(wanted, asked)
        if changed.steer == "always" and not allows_knobs:
            changed = _steering_all(changed.with_values({"steer": self.config.steer}))
        settled = guarded(changed, own)
        return Settled(settled, (*notices, *_overruled(wanted, changed, settled)))

    def conversation(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Beside the operator's system prompt a client's own leads the user turn behind it.

        So the operator's is not to be talked away, wherever the other stands.
        """
        return tuple(messages if self.config.system is None else fold_system(messages))

    def require_unchanged(self, registry: Registry) -> None:
        """Raises: ModelError: its files, or what is on record of its models, are not what it stands for."""
        what = next((file.path for file in self.files.values() if not file.is_current), None)
        if what is None and records_of(self.config, registry) != self.records:
            what = f"what is on record of the models of {self.id}"
        if what is not None:
            raise ModelError(f"{what} has changed since the server started: start it again")

    def _require_same_tokens(self) -> None:
        if self.tokens is None or self.tokens.is_current:
            return
        error = ModelError(f"{self.tokens.path} has changed since the server started", "Start it again.")
        log.warning("%s. %s", error.message, error.hint)
        raise error

    def _require_free(self, name: str, asked: "_Asked", *, allows_knobs: bool) -> None:
        param, value = asked
        if name in knobs_that("loads"):
            raise BadRequest(f"{name} can't change between answers", param)
        if name in _FILES:
            raise BadRequest(f"{name} names a file of this machine: only its operator may", param)
        if self.of_anchor and name in SAFETY_KNOBS:
            raise BadRequest(f"{name} is about the draft's tokens, and {self.id} has no draft", param)
        if self.of_anchor and name in ("alpha", "depth"):
            raise BadRequest(f"{name} is of the anchor's mixing, and {self.id} answers alone", param)
        own = getattr(self.config, name)
        if isinstance(value, str) and isinstance(own, int | float):
            raise BadRequest(f"{name} must be a number, not a text", param)
        if allows_knobs or name in _FREE:
            return
        changed = self._with_values({name: value}, {name: asked})  # what can't be is told as such
        keeps = _SAFER.get(name)
        if keeps is None or not keeps(own, getattr(changed, name)):
            raise BadRequest(
                f"{name} = {value} could lower safety: the server allows that with --allow-knobs alone",
                param,
                "knob_locked",
            )

    def _shortened(self, wanted: dict[str, Any]) -> tuple[str, ...]:
        most, asked = self.config.max_tokens, wanted.get("max_tokens", 0)
        if not (isinstance(asked, int | float) and asked > most):  # what is no number is told as such
            return ()
        wanted["max_tokens"] = most
        return (f"max_tokens {asked} was lowered to {most}, the most that this server gives",)

    def _with_values(self, wanted: Mapping[str, Any], asked: "Mapping[str, _Asked]") -> Config:
        try:
            return self.config.with_values(dict(wanted))
        except UsageError as error:
            name = next((name for name in asked if error.message.startswith(name)), None)
            raise BadRequest(error.message, asked[name].param if name else None) from None


def _overruled(asked: Iterable[str], before: Config, after: Config) -> Iterator[str]:
    """What a client asked for and does not get."""
    for name in asked:
        own, now = getattr(before, name), getattr(after, name)
        if own != now:
            yield f"{name} = {own} was changed to {now}, by how the answer is shown (stream, judge)"


class _Asked(NamedTuple):
    """A knob's value, and the field that holds it."""

    param: str
    value: Any


def _given(values: Mapping[str, Any], prefix: str) -> dict[str, _Asked]:
    """Knobs by their names. Raises: BadRequest: no such knob, or one given twice."""
    try:
        named = by_name(values)
    except UsageError as error:
        raise BadRequest(error.message, prefix.rstrip(".") or None) from None
    for name in named:
        if name not in Config.model_fields:
            near = near_knob(name)
            raise BadRequest(
                f"unknown knob '{name}'" + (f"; did you mean {near}?" if near else ""),
                f"{prefix}{name}",
                "unknown_parameter",
            )
    return {name: _Asked(f"{prefix}{name}", value) for name, value in named.items()}


def _refuse_unlocked(own: OwnFields) -> None:
    if own.stream == "open":
        what, param = "text before its verdict", "alignbeam.stream"
    elif not own.judge:
        what, param = "an answer without a verdict", "alignbeam.judge"
    else:
        return
    raise BadRequest(f"{what} is shown with --allow-knobs alone", param, "knob_locked")


def guarded(config: Config, own: OwnFields) -> Config:
    """The same, judged when the stream's mode demands it: nothing is shown that no verdict has passed.

    Where a judge is not measured well enough to block, `auto` shows what it found unsafe: not here.
    """
    if not own.judge:
        unjudged = {"beams": 1, "on_unsafe": "auto", "judge_at": None, "judge_every": None, "late": "off"}
        return config.with_values({**unjudged, "steer": "always"})
    if own.stream == "open":
        return config
    if config.on_unsafe == "auto":
        config = config.with_values({"on_unsafe": "refuse"})
    if own.stream == "window":  # an answer that is made again would follow what was sent of the first
        windows = {"judge_at": WINDOW_TOKENS, "judge_every": WINDOW_TOKENS}
        return _steering_all(config).with_values(windows)
    is_judged_at_end = config.judged and config.first_verdict_at is None
    if is_judged_at_end and not config.steers_by_request:  # of a clear request a verdict may come first
        return config
    return config.with_values(
        {"judge_at": config.first_verdict_at or MOST_TOKENS, "judge_every": MOST_TOKENS}
    )


def _steering_all(config: Config) -> Config:
    """The same with every request steered, and what the anchor's head reads of it counting as before."""
    always = config.with_values({"steer": "always"})
    if (always.reads_request, always.scored_by) == (config.reads_request, config.scored_by):
        return always
    return config.with_values({"request_by": "head", "clear_below": 0.0})  # no request is clear


def as_served(config: Config) -> Config:
    """The same, so that nothing is shown without a verdict."""
    return guarded(config, OwnFields())


def served_models(configs: Sequence[Config], registry: Registry) -> dict[str, ServedModel]:
    """What these configurations are served as, by id: the pairs in their order, then each anchor alone.

    Each is as `as_served` makes it, and its files are there.

    Raises:
        UsageError: two would have the same name, or one goes by safety tokens that no file names.
        ModelError: the file of these can't be read.
    """
    pairs = [_pair(config, registry) for config in configs]
    found = {model.id: model for model in pairs}
    if len(found) < len(pairs):
        raise UsageError("two pairs have the same name", "Serve each once.")
    for pair in pairs:
        if pair.config.depth > 0 and not pair.config.judged_by_head:  # it is the draft's, and reads no other
            anchor = _anchor_alone(pair, registry)
            found.setdefault(anchor.id, anchor)
    return found


def _pair(config: Config, registry: Registry) -> ServedModel:
    names = {role: registry.resolve(config.model_named(role)).name for role in config.roles}
    name = "+".join(names[role] for role in names if role != "judge")
    if config.profile is not None and config.profile in registry.profiles:
        own = registry.profile(config.profile)
        named = Config.of(own)
        same = all(named.named(role) == config.named(role) for role in config.roles)
        if same and named.lora == config.lora:
            name = config.profile
    return _served(name, name, config, "draft", registry)


def _anchor_alone(pair: ServedModel, registry: Registry) -> ServedModel:
    """For a client's titles and tags: quick, and judged as everything else, but by no head of the draft's."""
    late = "judge" if pair.config.late == "head" else pair.config.late
    plain = {"depth": 0, "beams": 1, "system": None, "late": late, "head_votes": False}
    config = as_served(pair.config.without_safety_tokens.with_values(plain))
    return _served(f"anchor:{pair.models['anchor']}", pair.pair, config, "anchor", registry)


def _served(name: str, pair: str, config: Config, role: ModelRole, registry: Registry) -> ServedModel:
    files = {each: registry.resolve(config.model_named(each)) for each in config.roles}
    files.setdefault(role, registry.resolve(config.model_named(role)))  # an anchor alone mixes nothing
    of_anchor = role == "anchor"
    adapters = () if of_anchor else tuple(adapters_of(role, config, registry))
    records = records_of(config, registry)
    sums = [model_sha256(file.path) for file in files.values()] + [one.sha256 for one in adapters]
    sums.append(json.dumps(records, sort_keys=True))
    tokens = None
    if config.goes_by_tokens:
        tokens = stamp_of(token_path(config))
        read_tokens(token_path(config))  # told now, and to the operator, not to each client
        sums.append(file_sha256(token_path(config)))
    changed = int(files[role].path.stat().st_mtime)
    names = dict.fromkeys((*ROLES, *files))
    models: dict[str, str | None] = {each: files[each].name if each in files else None for each in names}
    stamps = {each: stamp_of(file.path) for each, file in files.items()} | adapter_files(config, registry)
    marks = tuple(sums)
    return ServedModel(
        name, pair, config, of_anchor, changed, models, marks, stamps, records, adapters, tokens
    )
