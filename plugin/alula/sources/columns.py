"""Convert a column of a table to inputs of an encoder, and find its bad rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alula.encoders import Input
from alula.errors import UsageError

F32 = npt.NDArray[np.float32]
Bad = dict[int, str]


def is_vector(data_type: pa.DataType) -> bool:
    """True for lists of numbers."""
    is_list = pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type)
    numbers = pa.types.is_floating, pa.types.is_integer
    return bool(is_list and any(is_number(data_type.value_type) for is_number in numbers))


def is_text(data_type: pa.DataType) -> bool:
    """True for strings."""
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def find_column(name: str, schema: pa.Schema, wanted: str | None, input: Input, *, argument: str | None = None) -> str:
    """The column with the vectors or texts: the named one, or the only candidate.

    Args:
        name: The table, for messages.
        schema: Its columns.
        wanted: The column that the user named; None for the only candidate.
        input: ``"vectors"`` or ``"text"``.
        argument: The argument that names the column, for messages; by default `vector_column` or `text_column`.

    Raises:
        UsageError: If there is no such column, or several and none was named.
    """
    fits, what, usual = {
        "vectors": (is_vector, "number lists", "vector_column"),
        "text": (is_text, "strings", "text_column"),
    }[input]
    names = [field.name for field in schema if fits(field.type)]
    if wanted is not None:
        if wanted not in schema.names:
            raise UsageError(f"{name} has no column {wanted!r}; its columns are {', '.join(schema.names)}.")
        if wanted not in names:
            raise UsageError(
                f"The column {wanted!r} of {name} holds {schema.field(wanted).type}, not "
                f"{'lists of numbers' if input == 'vectors' else what}."
            )
        return wanted
    if len(names) != 1:
        found = f"{len(names)} columns of {what} ({', '.join(names)})" if names else f"no column of {what}"
        raise UsageError(f"{name} has {found}; name the one that holds the {input} ({argument or usual}=...).")
    return str(names[0])


def to_texts(column: pa.Array, name: str) -> tuple[list[str], Bad]:
    """The strings of a column; a missing one is bad, and empty."""
    bad = dict.fromkeys(_rows(column.is_null()), f"no text in the column {name!r}") if column.null_count else {}
    return ["" if text is None else text for text in column.to_pylist()], bad


def to_images(column: pa.Array, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.uint8], Bad]:
    """Convert fixed-size lists to images: uint8 (n, *shape); unreadable ones are 0."""
    images = np.zeros((len(column), *shape), np.uint8)
    held = column.drop_null().flatten().to_numpy()
    images[column.is_valid().to_numpy(zero_copy_only=False)] = held.reshape(-1, *shape)
    return images, {}  # why, its reader knows


def to_vectors(column: pa.Array, name: str, dim: int | None) -> tuple[F32, Bad]:
    """The vectors of a column of lists.

    Args:
        column: n lists of numbers.
        name: Of the column, for the reasons.
        dim: Their dimension; by default the length of the first that is not empty.

    Returns:
        float32 (n, dim), zeros for the bad ones, and the reason of each of these: it is missing, of another length, or
        holds something that is no finite float32.
    """
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
    if dim is None:
        dim = int(lengths[np.argmax(lengths > 0)]) if (lengths > 0).any() else 0
    fits = (lengths == dim) & (lengths > 0)
    bad = {int(row): _why_not(int(lengths[row]), dim, name) for row in np.flatnonzero(~fits)}
    values = (column.filter(pa.array(fits)) if bad else column).flatten()
    with np.errstate(over="ignore"):
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim or 1)
    rows = np.flatnonzero(fits)
    if values.null_count:
        missing = np.asarray(values.is_null()).reshape(numbers.shape).any(axis=1)
        bad |= dict.fromkeys(rows[missing].tolist(), f"a missing number in the column {name!r}")
    for row in rows[~np.isfinite(numbers).all(axis=1)].tolist():
        bad.setdefault(row, f"NaN or infinite values in the column {name!r}")
    if not bad:
        return numbers, {}
    matrix = np.zeros((len(column), dim), np.float32)
    matrix[rows] = numbers if len(rows) else 0
    matrix[list(bad)] = 0
    return matrix, bad


def _why_not(length: int, dim: int, name: str) -> str:
    if length < 0:
        return f"no vector in the column {name!r}"
    if length == 0:
        return f"an empty vector in the column {name!r}"
    return f"a vector of length {length} in the column {name!r}, where {dim} is needed"


def _rows(mask: pa.Array) -> list[int]:
    return [int(row) for row in np.flatnonzero(np.asarray(mask))]
