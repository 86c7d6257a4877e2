"""How many answers a server makes at once."""

from alignbeam_local.settings import SourcedConfig, SourcedValue

_SLOTS = 4


def with_slots(settings: SourcedConfig) -> SourcedConfig:
    """The same, with room for several unless somebody said how many."""
    if "parallel" in settings.given:
        return settings
    slots = SourcedValue(_SLOTS, "default of serve", explicit=False)
    return settings.with_value("parallel", slots)
