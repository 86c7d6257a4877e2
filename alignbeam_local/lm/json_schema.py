"""A JSON schema as a grammar (GBNF): every text of the grammar is JSON that keeps to the schema.

What a grammar cannot hold is an error, never left out in silence. Where a schema allows more than is
needed (further properties, whatever order), the grammar keeps to less.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, floor
from typing import Any

from ..errors import UsageError

_SPACE = '( " " | "\\n" " "{0,20} )?'
_SHARED = {
    "space": _SPACE,
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} )',
    "string": r'"\"" char* "\""',
    "digits": '"0" | [1-9] [0-9]{0,15}',
    "fraction": '( "." [0-9]{1,16} )? ( [eE] [-+]? [0-9]{1,2} )?',
    "value": 'object | array | string | "-"? digits fraction | "true" | "false" | "null"',
    "member": 'string space ":" space value',
    "object": '"{" space ( member ( space "," space member )* space )? "}"',
    "array": '"[" space ( value ( space "," space value )* space )? "]"',
}
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
#: What says something of a schema, and nothing of what keeps to it.
_SILENT = {
    *("$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "title", "description", "default"),
    *("examples", "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType"),
}
_KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum",),
}
#: More would make a grammar that takes long to read.
_MOST_REPEATS = 2000
_MOST_INTEGERS = 1000
_HINT = "docs/use.md says what a schema may hold."

Schema = Mapping[str, Any]


def schema_grammar(text: str) -> str:
    """The grammar of a schema.

    Raises:
        UsageError: it is not JSON, not a schema, or asks for what a grammar cannot hold.
    """
    try:
        schema = json.loads(text)
        json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()  # no JSON is what this refuses
        return _Grammar(schema).text
    except RecursionError:
        raise UsageError("the JSON schema is too deep", _HINT) from None
    except ValueError as error:
        raise UsageError(
            f"the JSON schema is not JSON: {error}", "Give a schema, or a file of one."
        ) from None


class _Grammar:
    """The rules of one schema; each `$ref` is a rule of its own, so that schemas may hold themselves."""

    def __init__(self, schema: Any) -> None:
        self._whole = schema
        self._rules = dict(_SHARED)
        self._refs: dict[str, str] = {}
        self._makers: dict[str, Callable[[Schema, str], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda *_: '"true" | "false"',
            "null": lambda *_: '"null"',
        }
        self._rules["root"] = self._any(schema, "#")

    @property
    def text(self) -> str:
        return "\n".join(f"{name} ::= {body}" for name, body in self._rules.items())

    def _new_rule(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = body
        return name

    def _any(self, schema: Any, where: str) -> str:
        """The expression of a schema; it may be alternatives."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise _error(where, f"{json.dumps(schema)[:40]} is no schema that an answer can keep to")
        for keyword, make in (("$ref", self._ref), ("const", self._const), ("enum", self._enum)):
            if keyword in schema:
                _require_known(schema, where, keyword, *(() if keyword == "$ref" else ("type",)))
                return make(schema, where)
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword in schema:
                _require_known(schema, where, keyword)
                return self._alternatives(schema, keyword, where)
        return self._typed(schema, where)

    def _ref(self, schema: Schema, where: str) -> str:
        ref = schema["$ref"]
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise _error(where, "$ref must name a place in this schema (#/...)")
        if ref not in self._refs:
            self._refs[ref] = name = self._new_rule("")
            self._rules[name] = self._any(self._place(ref, where), ref)
        return self._refs[ref]

    def _place(self, ref: str, where: str) -> Any:
        found = self._whole
        for part in filter(None, ref[1:].split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise _error(where, f"there is no {ref}")
            found = found[key]
        return found

    def _const(self, schema: Schema, _: str) -> str:
        return _literal(schema["const"])

    def _enum(self, schema: Schema, where: str) -> str:
        values = schema["enum"]
        types = _types(schema, where) if "type" in schema else _TYPES
        left = [one for one in values if _has_type(one, types)] if isinstance(values, list) else []
        if not left:
            raise _error(where, "enum lists no value that may be")
        return " | ".join(map(_literal, left))

    def _alternatives(self, schema: Schema, keyword: str, where: str) -> str:
        parts = schema[keyword]
        if not isinstance(parts, list) or not parts or (keyword == "allOf" and len(parts) > 1):
            raise _error(where, f"{keyword} of this kind is not supported")
        return " | ".join(self._any(part, f"{where}/{keyword}/{i}") for i, part in enumerate(parts))

    def _typed(self, schema: Schema, where: str) -> str:
        types = _types(schema, where)
        _require_known(schema, where, "type", *(word for one in types for word in _KEYWORDS.get(one, ())))
        return " | ".join(self._makers[one](schema, where) for one in types)

    # --- objects and arrays

    def _object(self, schema: Schema, where: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not _are_texts(required):
            raise _error(where, "properties must be an object, required a list of names")
        if not properties and not required:
            return self._map(schema.get("additionalProperties", True), where)
        further = schema.get("additionalProperties", True)
        members = {**properties, **{name: further for name in required if name not in properties}}
        pairs = {
            name: self._new_rule(f'{_literal(name)} space ":" space ( {self._any(own, f"{where}/{name}")} )')
            for name, own in members.items()
        }
        return f'"{{" space {self._members(list(pairs.items()), set(required))} "}}"'

    def _members(self, pairs: Sequence[tuple[str, str]], required: set[str]) -> str:
        """Members in their order, those that are not required there or not, a comma between two."""
        first, more = "", ""  # what may come where none came yet, and behind another
        for name, rule in reversed(pairs):
            rest = f" {self._new_rule(more)}" if more else ""
            if name in required:
                first, more = f"{rule}{rest}", f'space "," space {rule}{rest}'
            else:
                first = f"( {rule}{rest} | {first} )" if first else f"( {rule}{rest} )?"
                more = f'( space "," space {rule} )?{rest}'
        return f"{first} space"

    def _map(self, schema: Any, where: str) -> str:
        if schema is False:
            return '"{" space "}"'
        member = self._new_rule(f'string space ":" space ( {self._any(schema, f"{where}/*")} )')
        return f'"{{" space ( {member} ( space "," space {member} )* space )? "}}"'

    def _array(self, schema: Schema, where: str) -> str:
        firsts = schema.get("prefixItems", [])
        if not isinstance(firsts, list):
            raise _error(where, "prefixItems must be a list")
        heads = [self._new_rule(self._any(own, f"{where}/{i}")) for i, own in enumerate(firsts)]
        low, high = _bounds(schema, where, "minItems", "maxItems")
        low = max(low, len(heads))
        items = schema.get("items", True)
        if items is False:
            high = len(heads) if high is None else min(high, len(heads))
        if high is not None and high < low:
            raise _error(where, "no array can have so few items")
        rest = "" if high == len(heads) else self._new_rule(self._any(items, f"{where}/items"))
        return f'"[" space {_listed(heads, rest, low, high)} "]"'

    # --- plain values

    def _string(self, schema: Schema, where: str) -> str:
        low, high = _bounds(schema, where, "minLength", "maxLength")
        return rf'"\"" char{_repeats(low, high)} "\""'

    def _integer(self, schema: Schema, where: str) -> str:
        low, high = _integer_range(schema, where)
        if low is not None and high is not None and 0 <= high - low < _MOST_INTEGERS:
            return " | ".join(f'"{number}"' for number in range(low, high + 1))
        if high is None and low in (None, 0, 1):
            return {None: '"-"? digits', 0: "digits", 1: "[1-9] [0-9]{0,15}"}[low]
        raise _error(
            where, f"of integers, a grammar holds ranges of at most {_MOST_INTEGERS}, or from 0 or 1"
        )

    def _number(self, schema: Schema, where: str) -> str:
        others = {"maximum", "exclusiveMinimum", "exclusiveMaximum"} & set(schema)
        if others or schema.get("minimum") not in (None, 0):
            raise _error(where, "of numbers, a grammar holds none but minimum 0")
        return '"-"? digits fraction' if "minimum" not in schema else "digits fraction"


def _listed(heads: Sequence[str], rest: str, low: int, high: int | None) -> str:
    """Items with commas between: the heads, then `rest` as often as is left of `low` to `high`."""
    comma = ' space "," space '
    fixed = comma.join(heads)
    if not rest:
        return f"{fixed} space" if fixed else ""
    least, most = low - len(heads), None if high is None else high - len(heads)
    if fixed:
        return f"{fixed} ({comma}{rest} ){_repeats(least, most)} space"
    further = _repeats(max(least - 1, 0), None if most is None else most - 1)
    return f"( {rest} ({comma}{rest} ){further} space ){'' if least else '?'}"


def _repeats(low: int, high: int | None) -> str:
    return "*" if low == 0 and high is None else f"{{{low},{'' if high is None else high}}}"


def _literal(value: Any) -> str:
    """A value as JSON writes it, as a quoted text of a grammar."""
    spelt = json.dumps(value, ensure_ascii=False).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{spelt}"'


def _bounds(schema: Schema, where: str, least: str, most: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    for name, value in ((least, low), (most, high)):
        if value is not None and (not _is_integer(value) or not 0 <= value <= _MOST_REPEATS):
            raise _error(where, f"{name} must be a whole number up to {_MOST_REPEATS}")
    if high is not None and high < low:
        raise _error(where, f"{least} is over {most}")
    return int(low), None if high is None else int(high)


def _integer_range(schema: Schema, where: str) -> tuple[int | None, int | None]:
    lows, highs = list[int](), list[int]()
    for name, value in _numbers(schema, where):
        if name.endswith("inimum"):
            lows.append(ceil(value) if name == "minimum" else floor(value) + 1)
        else:
            highs.append(floor(value) if name == "maximum" else ceil(value) - 1)
    return max(lows, default=None), min(highs, default=None)


def _numbers(schema: Schema, where: str) -> Iterator[tuple[str, float]]:
    for name in _KEYWORDS["integer"]:
        if name in schema:
            value = schema[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
                raise _error(where, f"{name} must be a number up to 1e15")
            yield name, value


def _types(schema: Schema, where: str) -> tuple[str, ...]:
    """What it may be; where it does not say, what its keywords are about."""
    given = schema.get("type")
    if given is None:
        about = [one for one in _TYPES if one != "number" and set(_KEYWORDS.get(one, ())) & set(schema)]
        return tuple(about) or tuple(one for one in _TYPES if one != "integer")
    types = given if isinstance(given, list) else [given]
    if not types or not all(isinstance(one, str) and one in _TYPES for one in types):
        raise _error(where, f"type {json.dumps(given)[:40]} is none of {', '.join(_TYPES)}")
    return tuple(types)


def _has_type(value: Any, types: Sequence[str]) -> bool:
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "null": type(None),
    }
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int | float):
        return "number" in types or ("integer" in types and value == int(value))
    return any(isinstance(value, kinds[one]) for one in types if one in kinds)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _require_known(schema: Schema, where: str, *known: str) -> None:
    """Raises: UsageError: there is a keyword that the grammar would not hold."""
    if unknown := sorted(set(schema) - _SILENT - set(known)):
        raise _error(where, f"{unknown[0]} is not supported here")


def _error(where: str, what: str) -> UsageError:
    return UsageError(f"the JSON schema at {where}: {what}", _HINT)
