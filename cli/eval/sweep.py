"""What `alignbeam eval sweep` does."""

from collections.abc import Sequence

from alignbeam_local.errors import UsageError
from alignbeam_local.evaluation.methods.grid import grid_methods, parse_grid
from alignbeam_local.evaluation.methods.specs import parse_method
from alignbeam_local.evaluation.reports.figures import declined
from alignbeam_local.evaluation.reports.sweep import (
    Setting,
    check_profile_name,
    recommended,
    settings_of,
    write_profile,
)
from alignbeam_local.evaluation.reports.table import percent
from alignbeam_local.evaluation.runs.saved_runs import SavedRun, load_runs

from .. import session
from ..console.tables import Column, table, table_console
from ..console.terminal import printable, say
from ..options import Options
from .run import Request, execute

_COLUMNS = (
    Column("", 0, lambda row: row[1]),
    Column("setting", 0, lambda row: printable(row[0].name)),
    Column("refusal, 95 %", 0, lambda row: percent(row[0].refusal)),
    Column("over-refusal, 95 %", 0, lambda row: percent(row[0].over_refusal)),
    Column("seconds", 0, lambda row: f"{row[0].seconds:.2f}", is_number=True),
)


def sweep_request(request: Request, grid: Sequence[str], profile: str | None, options: Options) -> None:
    """Run the grid, or go on with it, show what was found, and write the profile if it is wanted.

    Raises:
        Cancelled: the user stopped it; what was made is kept.
        UsageError, ModelError: something that can't be; see the parts.
    """
    prepared = session.prepare(options, as_used=None)
    base = prepared.settings.config
    if profile is not None:
        check_profile_name(profile, prepared.registry.profiles)
    combinations = grid_methods(parse_grid(grid), base)
    execute(request, [parse_method("draft", base), parse_method("anchor", base), *combinations], prepared)
    (run,) = load_runs([request.out])
    settings = settings_of(run)
    if not settings:
        raise UsageError(
            "there is nothing to base a recommendation on", "Sweep harmful and benign prompts together."
        )
    best = recommended(settings, _anchor_refusal(run))
    _print(settings, best)
    if profile is not None:
        entry = next(entry for entry in combinations if entry.name == best.name)
        write_profile(
            profile, f"recommended by a sweep of {len(settings)} settings", entry, prepared.registry
        )
        say(f"written: profile {profile}; use it with --profile {profile}")


def _anchor_refusal(run: SavedRun) -> float:
    found = declined((one for one in run.scored if one.method == "anchor"), "harmful")
    return found.value if found else 1.0


def _print(settings: Sequence[Setting], best: Setting) -> None:
    """The front first, by refusal."""
    ordered = sorted(settings, key=lambda one: (not one.on_front, -one.refusal.value, one.over_refusal.value))
    rows = [(one, "best" if one is best else "front" if one.on_front else "") for one in ordered]
    console = table_console()
    console.print(table(_COLUMNS, rows, console.width))
