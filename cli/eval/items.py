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
    """At most `limit` prompts of each suite, or of each label named of it, as they are or under attacks.

    Raises:
        UsageError: there is no such suite, two have one name, or a prompt would be taken twice.
        AlignBeamError: one could not be fetched.
    """
    from alignbeam_local.evaluation.suites.attacks import attacked
    from alignbeam_local.evaluation.suites.hub import hub_fetch
    from alignbeam_local.evaluation.suites.sampling import pick
    from alignbeam_local.evaluation.suites.suites import load_suite, of_label

    chosen: list[Item] = []
    suites: dict[str, tuple[str, set[str]]] = {}
    for spec in specs:
        items = load_suite(spec, hub_fetch(offline=offline))
        ids = {item.id for item in items}
        place, _ = of_label(spec)
        known_place, taken = suites.setdefault(items[0].suite, (place, set()))
        if place != known_place:
            raise UsageError(f"two suites are called {items[0].suite}", "Rename one of the files.")
        if taken & ids:
            raise UsageError(
                f"--suite {spec} asks again for what another --suite asks for",
                f"Give {place} once, or once for each label.",
            )
        taken.update(ids)
        chosen += attacked(pick(items, limit, how, pick_seed), attacks)
    return chosen
