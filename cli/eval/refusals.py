"""What `alignbeam eval refusals` shows."""

from collections.abc import Iterator
from typing import NamedTuple

from alignbeam_local.refusals.check import Confusion, confusion, read_beginnings
from alignbeam_local.refusals.detector import declines
from alignbeam_local.search.refusals import is_refusal

from ..console.tables import Column, table, table_console

_FOUND_BY = {"string match": is_refusal, "detector": declines}


class _Row(NamedTuple):
    split: str
    language: str
    found_by: str
    counts: Confusion


def print_check() -> None:
    """The confusion matrix of string match and detector, by split and language."""
    columns = (
        Column("split", 0, lambda row: row.split.replace("_", " ")),
        Column("language", 0, lambda row: row.language),
        Column("found by", 0, lambda row: row.found_by),
        Column("found", 0, lambda row: str(row.counts.found), is_number=True),
        Column("missed", 0, lambda row: str(row.counts.missed), is_number=True),
        Column("false alarms", 0, lambda row: str(row.counts.miscalled), is_number=True),
        Column("passed", 0, lambda row: str(row.counts.passed), is_number=True),
        Column("found, 95 %", 0, lambda row: _share(row.counts.found_interval)),
        Column("false alarms, 95 %", 0, lambda row: _share(row.counts.miscalled_interval)),
    )
    console = table_console()
    console.print(table(columns, list(_rows()), console.width))


def _rows() -> Iterator[_Row]:
    beginnings = read_beginnings()
    for split in ("fit", "held_out"):
        own = [one for one in beginnings if one.split == split]
        english = [one for one in own if one.language == "en"]
        others = [one for one in own if one.language != "en"]
        for language, some in (("English", english), ("others", others), ("all", own)):
            for found_by, says in _FOUND_BY.items():
                yield _Row(split, language, found_by, confusion(some, says))


def _share(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.0%} to {interval[1]:.0%}"
