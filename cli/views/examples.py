"""How far the judge is with its worked examples: what keeps a first answer waiting, and no later one."""

from alignbeam_local.events import ExamplesRead


def examples_left(event: ExamplesRead) -> str:
    """The share that is read, and the seconds that the rest takes."""
    share = f"{event.done / event.total:.0%}"
    return share if event.seconds_left is None else f"{share}, about {event.seconds_left:.0f} s left"
