"""Prompts to measure on: suites by name from the hub, or a JSON Lines, CSV or TSV file."""

import csv
import io
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ...errors import AlignBeamError, UsageError, did_you_mean
from ...paths import user_path
from ...prompt.message import Message
from ...reading import read_text
from ...result_json import parsed_row

Label = Literal["harmful", "benign", "utility"]
LABELS: tuple[Label, ...] = get_args(Label)
Row = dict[str, Any]

_DATA = Path(__file__).parent / "suites.toml"
_FORMATS = ".jsonl, .csv, .tsv or .parquet"


@dataclass(frozen=True)
class Item:
    """One prompt; `reference` is the right answer, where there is one: a number, or an option's letter.

    `earlier` are the turns before it, a user's and an assistant's by turns; `prefill` is what the answer has
    begun with.
    """

    suite: str
    id: str
    prompt: str
    label: Label
    category: str = ""
    reference: str | None = None
    earlier: tuple[Message, ...] = ()
    prefill: str = ""


class HubFile(BaseModel):
    """A file of a dataset repository on the Hugging Face Hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str
    file: str


class NamedSuite(BaseModel):
    """One entry of suites.toml: where a suite comes from and how its rows are read.

    It is a file of the hub, or a `shipped` one beside suites.toml, which has the shape of a user's own.
    `prompt`, `category` and `reference` are format strings over a row's fields; of a reference counts what
    follows `reference_after`. `label` is a label, or the name of the field that `labels` translates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    licence: str
    hub: HubFile | None = None
    shipped: str | None = None
    prompt: str = ""
    label: str = ""
    labels: Mapping[str, Label] = {}
    category: str = ""
    reference: str | None = None
    reference_after: str = ""

    def item(self, name: str, number: int, row: Row) -> Item:
        """Raises: KeyError, IndexError, AttributeError: a row of another shape."""
        label = self.labels[str(row[self.label])] if self.labels else self.label
        reference = None if self.reference is None else self.reference.format_map(row)
        if reference and self.reference_after:
            reference = reference.rpartition(self.reference_after)[2].strip()
        assert label in LABELS, f"suites.toml: label {label}"
        return Item(
            name,
            f"{name}-{number}",
            self.prompt.format_map(row),
            label,
            self.category.format_map(row),
            reference,
        )


@cache
def named_suites() -> Mapping[str, NamedSuite]:
    """The suites that have a name."""
    tables = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    return {name: NamedSuite.model_validate(table) for name, table in tables.items()}


#: From a file of a named suite to a path on this machine.
Fetch = Callable[[HubFile], Path]


def load_suite(spec: str, fetch: Fetch) -> list[Item]:
    """The prompts of a named suite, or of a file, in order.

    Args:
        spec: a name of suites.toml, or a path; behind a colon the one label that is wanted.
        fetch: brings a file of a named suite here.

    Raises:
        UsageError: no such suite or file, a format that is not known, a row that is no prompt, no prompt
            of that label.
        AlignBeamError: the suite could not be fetched, or its file has another shape than expected.
    """
    where, label = of_label(spec)
    if label is None:
        return _load_all(spec, fetch)
    items = [item for item in _load_all(where, fetch) if item.label == label]
    if not items:
        raise UsageError(f"{where} holds no prompt that is {label}")
    return items


def of_label(spec: str) -> tuple[str, str | None]:
    """The suite or file that a `--suite` names, and the one label that is wanted of it, if one is."""
    where, _, label = spec.rpartition(":")
    return (where, label) if where and label in LABELS else (spec, None)


def _load_all(spec: str, fetch: Fetch) -> list[Item]:
    if spec in named_suites():
        return _load_named(spec, named_suites()[spec], fetch)
    path = user_path(spec)
    if not path.exists():
        raise _unknown(spec)
    return _load_file(path)


def _unknown(spec: str) -> UsageError:
    where, _, label = spec.rpartition(":")
    if where in named_suites() or (where and user_path(where).exists()):
        return UsageError(f"--suite {spec}: no label '{label}'", f"Labels: {', '.join(LABELS)}.")
    known = list(named_suites())
    hint = did_you_mean(spec, known, f"Named suites: {', '.join(known)}.", num=3, cutoff=0.5)
    return UsageError(f"no suite and no file '{spec}'", f"{hint} Or give the path of a {_FORMATS} file.")


def _load_named(name: str, suite: NamedSuite, fetch: Fetch) -> list[Item]:
    if suite.shipped:
        return _load_file(_DATA.with_name(suite.shipped))
    assert suite.hub is not None, f"suites.toml: {name} comes from nowhere"
    rows = read_rows(fetch(suite.hub))
    try:
        return [suite.item(name, number, row) for number, row in enumerate(rows)]
    except (KeyError, IndexError, AttributeError) as error:
        raise AlignBeamError(
            f"suite {name}: its file has another shape than expected: {error!r}",
            "Its owner may have changed it: convert it to JSON Lines with id, prompt and label.",
        ) from None


def _load_file(path: Path) -> list[Item]:
    items = [_own_item(path, number, row) for number, row in enumerate(read_rows(path), 1)]
    ids = [item.id for item in items]
    if twice := next((one for one in ids if ids.count(one) > 1), None) if len(set(ids)) < len(ids) else None:
        raise UsageError(f"{path}: id '{twice}' is there twice", "Ids name prompts: give each its own.")
    if not items:
        raise UsageError(f"{path} holds no prompt")
    return items


def _own_item(path: Path, number: int, row: Row) -> Item:
    prompt, label = row.get("prompt"), row.get("label")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f"{path}, row {number}: no prompt", "Each row needs a field `prompt`.")
    if label not in LABELS:
        raise UsageError(
            f"{path}, row {number}: label {label!r}", f"Each row needs a label: {', '.join(LABELS)}."
        )
    given = row.get("id")
    return Item(
        suite=path.stem,
        id=f"{path.stem}-{number}" if given in (None, "") else str(given),
        prompt=prompt,
        label=label,
        category=str(row.get("category") or ""),
        reference=_reference(path, number, row) if label == "utility" else None,
        earlier=_earlier(path, number, row.get("earlier")),
        prefill=str(row.get("prefill") or ""),
    )


def _earlier(path: Path, number: int, turns: Any) -> tuple[Message, ...]:
    """The turns before the prompt: a user's and an assistant's by turns, the user's first."""
    hint = 'Write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...].'
    try:
        found = TypeAdapter(tuple[Message, ...]).validate_python(turns or ())
    except ValidationError:
        raise UsageError(f"{path}, row {number}: `earlier` holds no turns", hint) from None
    if len(found) % 2 or any(turn.role != ("user", "assistant")[n % 2] for n, turn in enumerate(found)):
        raise UsageError(f"{path}, row {number}: in `earlier` user and assistant do not take turns", hint)
    return found


def _reference(path: Path, number: int, row: Row) -> str | None:
    """The right answer as it is compared: a number, or an option's letter."""
    text = "" if row.get("answer") is None else str(row["answer"]).strip()
    if letter := re.fullmatch(r"\(?([A-Ha-h])[).]?", text):
        return letter[1].upper()
    if text and not re.search(r"\d", text):
        raise UsageError(f"{path}, row {number}: answer {text!r}", "Give a number, or a letter from A to H.")
    return text or None


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON Lines, CSV, TSV or Parquet file.

    Raises:
        UsageError: another format, a file that cannot be read, a line that is no object.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    text = read_text(path, f"Give a UTF-8 {_FORMATS} file.")
    if path.suffix in (".csv", ".tsv"):
        return list(_table_rows(path, text))
    if path.suffix in (".jsonl", ".json", ".ndjson"):
        return list(_json_rows(path, text))
    raise UsageError(f"{path}: not a format of suites", f"Give a {_FORMATS} file.")


def _table_rows(path: Path, text: str) -> Iterator[Row]:
    """Rows with exactly the header's fields: a comma that is in no quotes must not cut a prompt short."""
    name, delimiter = ("tab", "\t") if path.suffix == ".tsv" else ("comma", ",")
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    hint = f'Put a field that holds a {name} or a line break in "quotes", and double the quotes in it.'
    try:
        columns, *rows = [row for row in reader if row] or [[]]
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}", hint) from None
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise UsageError(f"{path}: column '{twice}' is there twice", "Give each column a name of its own.")
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise UsageError(f"{path}, row {number}: {len(row)} fields under {len(columns)} columns", hint)
        yield dict(zip(columns, row, strict=True))


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parsed_row(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}, line {number}: not JSON: {error}", "One object a line.") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number}: not an object", "One object a line.")
        yield row


def _read_parquet(path: Path) -> list[Row]:
    """Most datasets of the hub are kept in this format; its library is large and not a dependency."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(
            "this suite is a Parquet file, and pyarrow is not installed",
            "pip install 'alignbeam-local[suites]', or convert it to JSON Lines and give its path.",
        ) from None
    try:
        return list(parquet.read_table(path).to_pylist())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def prompts_sha256(items: Iterable[Item]) -> str:
    """A hash of what is asked, in order."""
    return sha256(json.dumps(list(map(_hashed, items))).encode()).hexdigest()


def _hashed(item: Item) -> list[Any]:
    """What of an item is asked; the hash of one without earlier turns is what it always was."""
    asked: list[Any] = [item.suite, item.id, item.prompt, item.label, item.reference]
    if item.earlier or item.prefill:
        asked += [[[turn.role, turn.content] for turn in item.earlier], item.prefill]
    return asked
