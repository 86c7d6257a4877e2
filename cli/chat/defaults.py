"""A chat's own defaults, laid over the knobs that nobody gave."""

from dataclasses import replace

from alignbeam_local.knobs.judging import CHAT_JUDGE_AT
from alignbeam_local.settings import SourcedConfig, SourcedValue

_DEFAULT = "default of chat"


def for_chat(settings: SourcedConfig, *, is_kept: bool) -> SourcedConfig:
    """With a chat's own defaults; one that is not kept leaves no system prompt on disk either."""
    if not is_kept and settings.config.prompt_cache == "all":
        settings = settings.override({"prompt_cache": "examples"}, "--no-log")
    return with_chat_defaults(settings)


def with_chat_defaults(settings: SourcedConfig) -> SourcedConfig:
    """Where several beams are judged and nobody said when: early, so that the answer streams from then on."""
    own = SourcedValue(CHAT_JUDGE_AT, _DEFAULT, explicit=False)
    given = settings.one_at_a_time().given
    others = {name: value for name, value in given.items() if (name, value) != ("judge_at", own)}
    plain = replace(settings, given=others)
    if "judge_at" in others or (plain.config.beams == 1 and not plain.config.steers_by_request):
        return plain
    return plain.with_value("judge_at", own)
