"""What a chat says before the first question."""

from collections.abc import Iterator

from alignbeam_local.config import Config
from alignbeam_local.settings import SourcedConfig

from ..start.starter import TOY, is_toy

_ABOUT = "A local model answers, an aligned one begins, a judge chooses. /help lists what can be typed."
_EXAMPLES = (
    "The judge reads its worked examples in the background, only this first time; "
    "the first answer may have to wait for it."
)
PLACEHOLDER = "Ask something. /help lists what else can be typed."


def greeting(
    settings: SourcedConfig, *, reads_examples: bool = False, is_remote: bool = False
) -> Iterator[str]:
    """What this is, what is loaded, and what a newcomer should know of that.

    Args:
        reads_examples: the judge has yet to read them.
        is_remote: a running server holds the models.
    """
    yield _ABOUT
    yield from loaded(settings.config)
    if is_remote:
        yield "A running server holds the models; --no-server would load them here."
    if is_toy(settings):
        yield f"{TOY[0].upper()}{TOY[1:]}"
    if reads_examples:
        yield _EXAMPLES


def loaded(config: Config) -> Iterator[str]:
    """Who answers and who begins; who judges, and by which profile."""
    played = (f"{role} {short_name(config.model_named(role))}" for role in config.roles if role != "judge")
    yield " ← ".join(played)
    judge = f"judge {short_name(config.model_named('judge'))}" if config.judged else "unjudged"
    yield f"{judge} · profile {config.profile}" if config.profile else judge


def short_name(model: str) -> str:
    """A model's name as it fits a line: a file's without its folder."""
    return model.rpartition("/")[2].removesuffix(".gguf")
