"""The grammar that an answer keeps to, if its knobs name one."""

from functools import lru_cache

from ..config import Config
from .json_schema import schema_grammar


def grammar_of(config: Config) -> str:
    """The grammar (GBNF) of an answer; empty: any text.

    Raises:
        UsageError: a JSON schema that is none, or that no grammar can hold.
    """
    if config.json_schema is not None:
        return _of_schema(config.json_schema)
    return config.grammar or ""


_of_schema = lru_cache(maxsize=8)(schema_grammar)
