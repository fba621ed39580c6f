"""A gateway's policy: native index types that become index types of Alula.

Many programs offer a fixed list of index types, or AUTOINDEX alone. A rule says for which collections such a type
stands for one of Alula's, with its encoder and options::

    [[rules]]
    collection = "docs_*"
    instead_of = ["AUTOINDEX", "HNSW"]
    index_type = "DRQ"
    encoder = "words"
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from alula.encoders import Encoder
from alula.errors import UsageError
from alula.index_types import VECTOR_TYPES, check_options, index_type

AUTOMATIC = "AUTOINDEX"


@dataclass(frozen=True)
class Rule:
    """One rule of a policy.

    Args:
        index_type: Name of the index type of Alula.
        encoder: Name or fingerprint of its encoder.
        database: The databases, as a pattern with ``*`` and ``?``.
        collection: The collections, as such a pattern.
        field: The vector fields, as such a pattern.
        dim: The fields' dimension; None for any that the encoder takes.
        metric: The metric that a client asks for; None for the encoder's.
        instead_of: The native index types that the rule replaces.
        keep_vectors: False to drop the vectors.
        vector_type: The type of the fields that keep them.
        options: Create options of the index type.
    """

    index_type: str
    encoder: str
    database: str = "*"
    collection: str = "*"
    field: str = "*"
    dim: int | None = None
    metric: str | None = None
    instead_of: Sequence[str] = (AUTOMATIC,)
    keep_vectors: bool = True
    vector_type: str = "FLOAT_VECTOR"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def names(self, database: str, collection: str, vector_field: str, asked: str) -> bool:
        """True if the rule is about a field and the index type that a client asks for."""
        named = ((database or "default", self.database), (collection, self.collection), (vector_field, self.field))
        return (asked or AUTOMATIC).upper() in self.instead_of and all(fnmatchcase(*pair) for pair in named)

    def fits(self, encoder: Encoder, dim: int, metric: str | None) -> bool:
        """True if rule and encoder take vectors of a dimension, by a metric."""
        metrics = {encoder.info.metric, *([self.metric] if self.metric else []), *([metric] if metric else [])}
        return dim == encoder.info.input_dim and self.dim in (None, dim) and len(metrics) == 1


@dataclass(frozen=True)
class Policy:
    """The rules of a gateway, the first that fits counts."""

    rules: Sequence[Rule] = ()

    def covers(self, database: str, collection: str, vector_field: str, asked: str, own: str) -> bool:
        """True if a native type stands for an index type of Alula on a field."""
        return any(rule.index_type == own for rule in self.naming(database, collection, vector_field, asked))

    def naming(self, database: str, collection: str, vector_field: str, asked: str) -> list[Rule]:
        """The rules about a field and the index type that a client asks for."""
        return [rule for rule in self.rules if rule.names(database, collection, vector_field, asked)]


def read_policy(path: Path) -> Policy:
    """Read a policy file (TOML).

    Raises:
        UsageError: If it cannot be read, or a rule is wrong.
    """
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415

    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"The policy {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The policy {path} is not TOML: {error}.") from None
    rules = found.get("rules")
    if set(found) != {"rules"} or not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise UsageError(f"The policy {path} must contain tables [[rules]], and nothing else.")
    return Policy([_rule(rule, f"Rule {number} of the policy {path}") for number, rule in enumerate(rules, 1)])


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "index_type": str,
    "encoder": str,
    "database": str,
    "collection": str,
    "field": str,
    "dim": int,
    "metric": str,
    "instead_of": (str, list),
    "keep_vectors": bool,
    "vector_type": str,
    "options": dict,
}


def _rule(given: Mapping[str, Any], subject: str) -> Rule:
    unknown = sorted(set(given) - set(_TYPES))
    if unknown:
        raise UsageError(f"{subject} has no key {unknown[0]!r}; its keys are {', '.join(_TYPES)}.")
    for name in ("index_type", "encoder"):
        if not given.get(name):
            raise UsageError(f"{subject} lacks {name}.")
    for name, value in given.items():
        if not isinstance(value, _TYPES[name]) or (name == "dim" and isinstance(value, bool)):
            raise UsageError(f"{subject} has a wrong value for {name}: {value!r}.")
    try:
        declared = index_type(given["index_type"])
        options = check_options(declared.create_options, given.get("options", {}), declared.name)
    except UsageError as error:
        raise UsageError(f"{subject} is wrong: {error}") from None
    kept = given.get("vector_type", "FLOAT_VECTOR")
    if kept not in VECTOR_TYPES:
        choices = " or ".join(VECTOR_TYPES)
        raise UsageError(f"{subject} has a wrong value for vector_type: {kept!r}; choose {choices}.")
    types = given.get("instead_of", [AUTOMATIC])
    types = [types] if isinstance(types, str) else types
    if not types or not all(isinstance(one, str) for one in types):
        raise UsageError(f"{subject} has a wrong value for instead_of: {types!r}.")
    metric = given["metric"].upper() if "metric" in given else None
    rest = {"instead_of": [one.upper() for one in types], "options": options, "index_type": declared.name}
    return Rule(**{**given, **rest, "metric": metric})
