"""Find index types by name in the entry-point group ``alula.index_types``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from alula.encoders import Encoder
from alula.errors import AlulaError, UsageError
from alula.index_types.base import IndexType
from alula.index_types.capabilities import STORAGE_PROBES, Probe

GROUP = "alula.index_types"


@cache
def index_types() -> dict[str, IndexType]:
    """Every registered index type by name.

    Raises:
        AlulaError: If a registered type cannot be imported, is no `IndexType`, or two packages claim one name.
    """
    found: dict[str, IndexType] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist else "an unknown package"
        try:
            cls = point.load()
        except Exception as error:  # a third-party module can fail in any way
            raise AlulaError(f"The index type {point.name} of {package} cannot be imported: {error}.") from error
        if not (isinstance(cls, type) and issubclass(cls, IndexType)) or getattr(cls, "name", None) != point.name:
            raise AlulaError(f"The entry point {point.name} of {package} is not an IndexType of that name.")
        if point.name in found:
            raise AlulaError(f"Two installed packages register the index type {point.name}; uninstall one of them.")
        try:
            found[point.name] = cls()
        except Exception as error:  # an abstract method is missing, or its __init__ fails
            raise AlulaError(f"The index type {point.name} of {package} cannot be used: {error}.") from error
    return found


def index_type(name: str) -> IndexType:
    """The index type of that name, in capitals or not, as Milvus takes its own.

    Raises:
        UsageError: If the name is unknown; the message lists the known ones.
    """
    types = index_types()
    same = [known for known in types if known.upper() == name.upper()]
    if not same:
        raise UsageError(f"There is no index type {name!r}; there are: {', '.join(sorted(types))}.")
    return types[name if name in same else same[0]]


def index_type_for(encoder: Encoder) -> IndexType:
    """The index type of an encoder's kind, the first by name.

    Raises:
        UsageError: If no index type is registered for it.
    """
    kind = next((kind for kind in index_types().values() if kind.encoder_kind == encoder.kind), None)
    if kind is None:
        raise UsageError(f"No index type is known for encoders of the kind {encoder.kind!r}, as {encoder.path} is.")
    return kind


def probes() -> tuple[Probe, ...]:
    """The probes of all registered index types and of kept vectors, each name once.

    Raises:
        AlulaError: If two types declare different probes of one name; and as `index_types`.
    """
    union: dict[str, Probe] = {}
    for probe in (*(probe for each in index_types().values() for probe in each.probes), *STORAGE_PROBES):
        union[probe.name] = union[probe.name].merged(probe) if probe.name in union else probe
    return tuple(union.values())
