"""The prompts that `--suite` and `--evaluate` name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignbeam_local.errors import UsageError

if TYPE_CHECKING:
    from alignbeam_local.evaluation.suites.sampling import Pick
    from alignbeam_local.evaluation.suites.suites import Item


def suite_items(
    specs: Sequence[str],
    limit: int | None,
    *,
    how: "Pick" = "stratified",
    pick_seed: int = 0,
    attacks: Sequence[str] = (),
    offline: bool = False,
) -> "list[Item]":
    """At most `limit` prompts of each suite, as they are or under attacks.

    Raises:
        UsageError: there is no such suite, or two have one name.
        AlignBeamError: one could not be fetched.
    """
    from alignbeam_local.evaluation.suites.attacks import attacked
    from alignbeam_local.evaluation.suites.hub import hub_fetch
    from alignbeam_local.evaluation.suites.sampling import pick
    from alignbeam_local.evaluation.suites.suites import load_suite

    chosen: list[Item] = []
    names: set[str] = set()
    for spec in specs:
        items = load_suite(spec, hub_fetch(offline=offline))
        if items[0].suite in names:
            raise UsageError(
                f"two suites are called {items[0].suite}",
                "Rename one of the files; of one file give a single label, or none for all of it.",
            )
        names.add(items[0].suite)
        chosen += attacked(pick(items, limit, how, pick_seed), attacks)
    return chosen
