"""The anchor that an adapter brings along: its own base, which is loaded anyway."""

import shlex

from alignbeam_local.errors import AlignBeamError
from alignbeam_local.models.gguf_header import require_model
from alignbeam_local.models.registry import Registry
from alignbeam_local.settings import SourcedConfig

from ..console.terminal import say


def propose_own_base(settings: SourcedConfig, registry: Registry) -> None:
    """Say that the draft without its adapters could be its anchor, where nobody named another."""
    config, anchor = settings.config, settings.given.get("anchor")
    if not config.lora or not config.depth or (anchor is not None and anchor.explicit):
        return
    try:
        draft = registry.require(config.model_named("draft"))
        is_own = any(registry.resolve(name).path == draft.path for name in config.anchor_names)
        is_base_model = draft.entry.format == "base" or not (
            draft.entry.format or require_model(draft.path).chat_template
        )
    except AlignBeamError:  # told where the models are loaded
        return
    if not is_own and not is_base_model:
        say(
            "note: the draft without its adapter can be its anchor: one file, loaded once, and every token "
            f"crosses: --anchor {shlex.quote(str(config.draft))}"
        )
