"""The opened models of an engine: the draft, its anchors behind their bridges, and the judge."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..config import Config
from ..heads.answer_head import AnswerHead, JudgeRecord
from ..heads.head import RequestHead
from ..judge.judge import Judge
from ..lm.language_model import LanguageModel
from ..lm.prompt_cache import PromptCache
from ..machine.context_size import ContextSize, context_sizes
from ..prompt.formats import PromptFormat
from ..result import ModelCard
from ..roles import ROLES, file_role, reader_role, twin_role
from ..search.bridge import Bridge
from .examples import ExampleReading


@dataclass(frozen=True)
class Model:
    """A role filled: the model, how it reads a conversation, which file it is, how much it can read."""

    lm: LanguageModel
    format: PromptFormat
    card: ModelCard
    context: int  # tokens of one conversation: the knob's, at most what the model was made for
    trained_context: int

    @cached_property
    def prompt(self) -> PromptCache:
        """What it holds of the last prompt, from one answer to the next."""
        return PromptCache(self.lm)


@dataclass(frozen=True)
class Anchor:
    """A model that lends its first tokens, and the bridge that carries them to the draft.

    The same file may be open once more, with a cache of its own: `twin` reads another prompt, `reader` reads
    requests at the layer of `head`, which tells from its states how harmful they are.
    """

    model: Model
    bridge: Bridge
    head: RequestHead | None = None
    role: str = "anchor"
    twin: Model | None = None
    reader: Model | None = None


@dataclass
class OpenModels:
    """All that answers are made of; lives from one load to the next."""

    draft: Model
    anchors: tuple[Anchor, ...]
    judge: Judge | None
    judge_model: Model | None
    examples: ExampleReading
    opened: dict[str, ContextSize] = field(default_factory=dict)  # what was opened, by role
    answer_head: AnswerHead | None = None  # of the draft, where it is the judge

    @property
    def followers(self) -> Iterator[Model]:
        """The models that read the conversation: the draft, the anchors, then the anchors' twins."""
        yield self.draft
        yield from (anchor.model for anchor in self.anchors)
        yield from (anchor.twin for anchor in self.anchors if anchor.twin)

    @property
    def readers(self) -> list[Model]:
        """What reads requests, where a head does."""
        return [anchor.reader for anchor in self.anchors if anchor.reader]

    @property
    def judge_record(self) -> JudgeRecord | None:
        """What is known of the judge, or of the answer head that judges alone; None: nothing is."""
        return self.judge.record if self.judge else self.answer_head

    @property
    def anchor_alone(self) -> "OpenModels":
        """The same with the first anchor in the draft's place, and nothing to mix."""
        return replace(self, draft=self.anchors[0].model, anchors=())

    def forget_prompts(self) -> None:
        """Drop what draft and anchors hold of conversations."""
        for model in (*self.followers, *self.readers):
            model.prompt.clear()

    @property
    def by_role(self) -> dict[str, Model]:
        """The opened models under the names of their roles; what plays none is left out."""
        anchors = [anchor.role for anchor in self.anchors]
        twins = [twin_role(anchor.role) for anchor in self.anchors if anchor.twin]
        readers = [reader_role(anchor.role) for anchor in self.anchors if anchor.reader]
        roles = ("draft", *anchors, *twins, *readers, "judge")
        models = (*self.followers, *self.readers, self.judge_model)
        return {role: model for role, model in zip(roles, models, strict=True) if model}

    @property
    def cards(self) -> dict[str, ModelCard | None]:
        """Which file plays which role: the three, and further anchors."""
        models = {role: model for role, model in self.by_role.items() if role == file_role(role)}
        return {role: models[role].card if role in models else None for role in (*ROLES, *further(models))}

    def with_contexts(self, lms: Sequence[LanguageModel]) -> "OpenModels":
        """The same models on other contexts, in the order of `followers`, then of `readers`."""
        rest = iter(lms)
        draft = replace(self.draft, lm=next(rest))
        anchors = [replace(anchor, model=replace(anchor.model, lm=next(rest))) for anchor in self.anchors]
        twins = [replace(a, twin=replace(a.twin, lm=next(rest))) if a.twin else a for a in anchors]
        read = [replace(a, reader=replace(a.reader, lm=next(rest))) if a.reader else a for a in twins]
        return replace(self, draft=draft, anchors=tuple(read))

    def serves(self, config: Config) -> bool:
        """Whether an answer with these knobs needs nothing that is not open."""
        wanted = context_sizes(config)
        if config.needs_answer_head and self.answer_head is None:
            return False
        return all(role in self.opened and self.opened[role].holds(size) for role, size in wanted.items())


def further(roles: Iterable[str]) -> list[str]:
    """Those that only some answers have: the anchors behind the first."""
    return [role for role in roles if role not in ROLES]
