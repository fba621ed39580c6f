"""The table of Milvus's field types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pymilvus import DataType

from alula.errors import DataError
from alula.index_types import FieldSpec
from alula.milvus.wire.vectors import F32, from_bfloat16, to_bfloat16, unfit_for_half
from alula.sources.json_values import DOCUMENT

MILVUS_TYPE = b"milvus"  # key of the Milvus type in the metadata of an Arrow field
Layout = Literal["scalar", "array", "dense", "sparse"]


@dataclass(frozen=True)
class FieldType:
    """A type of Milvus's fields.

    Args:
        name: Its name in Milvus.
        layout: ``scalar``: one value per row, a JSON document in UTF-8 among these. ``array``: a list of scalars.
            ``dense``: a vector of fixed dimension. ``sparse``: the non-zeros of a vector.
        slot: The field of the messages ``ScalarField`` and ``VectorField`` with its values.
        bits: Bits of a scalar, or of one dimension; 0 where rows differ.
        dtype: numpy's dtype of the numbers in a message; None for text. A BFLOAT16 is read as ``<u2``.
        arrow: Arrow type of a scalar.
        parquet: Arrow type in the files of a bulk import; None if Alula writes no such files.
        distinct: True for scalars that results can be grouped by.
    """

    name: str
    layout: Layout
    slot: str
    bits: int
    dtype: np.dtype[Any] | None = None
    arrow: pa.DataType | None = None
    parquet: pa.DataType | None = None
    distinct: bool = False

    @property
    def number(self) -> DataType:
        """Its number in Milvus's protocol."""
        return DataType[self.name]

    @property
    def is_float(self) -> bool:
        """True for dense vectors that are read as float32."""
        return self.layout == "dense" and self.name.endswith(("FLOAT_VECTOR", "FLOAT16_VECTOR"))

    def bytes_per_row(self, dim: int = 1) -> int:
        """Bytes of a scalar or of `dim` numbers; 0 where rows differ."""
        return self.bits * dim // 8

    def arrow_type(self, dim: int | str | None = None, element_type: str = "FLOAT") -> pa.DataType:
        """The Arrow type of a column with values of this type.

        Args:
            dim: The dimension of dense vectors.
            element_type: The name of the type of an array's elements.

        Returns:
            Lists for arrays; lists of float32 of fixed size for vectors of floats; binary for other vectors: the packed
            bits, or the `SPARSE_PAIR`s.
        """
        if self.layout == "scalar":
            return self.arrow
        if self.layout == "array":
            return pa.list_(TYPES[element_type].arrow)
        if self.layout == "sparse":
            return pa.binary()
        size = int(dim or 0)
        return pa.list_(pa.float32(), size) if self.is_float else pa.binary(self.bytes_per_row(size))

    def decode(self, content: bytes) -> npt.NDArray[Any]:
        """Decode dense vectors: float32 (n,) from floats, else int8 or uint8 (n,)."""
        numbers = np.frombuffer(content, self.dtype)
        if self.name == "BFLOAT16_VECTOR":
            return from_bfloat16(numbers)
        return numbers.astype(np.float32, copy=False) if self.is_float else numbers

    def encode(self, vectors: F32 | npt.NDArray[np.uint8]) -> bytes:
        """Encode dense vectors, rounded to the bits of the type; the inverse of `decode`.

        Raises:
            DataError: If the type cannot hold a vector, see `unfit_for_half`.
        """
        if self.name == "BFLOAT16_VECTOR":
            return to_bfloat16(np.asarray(vectors, np.float32)).tobytes()
        if self.name == "FLOAT16_VECTOR" and (unfit := unfit_for_half(np.atleast_2d(vectors))):
            raise DataError(f"A vector has {next(iter(unfit.values()))}.")
        return np.ascontiguousarray(vectors, self.dtype).tobytes()


def _scalar(
    name: str, slot: str, bits: int, arrow: pa.DataType, parquet: pa.DataType | None = None, *, distinct: bool = True
) -> FieldType:
    return FieldType(name, "scalar", slot, bits, arrow=arrow, parquet=parquet or arrow, distinct=distinct)


def _dense(name: str, bits: int, dtype: str, parquet: pa.DataType | None = None) -> FieldType:
    return FieldType(name, "dense", name.lower(), bits, np.dtype(dtype), parquet=parquet)


_FLOATS = pa.list_(pa.float32())
BYTES = pa.list_(pa.uint8())  # in Parquet, of vectors that Arrow has no type for
TYPES: dict[str, FieldType] = {
    field_type.name: field_type
    for field_type in (
        _scalar("BOOL", "bool_data", 8, pa.bool_()),
        _scalar("INT8", "int_data", 8, pa.int8()),
        _scalar("INT16", "int_data", 16, pa.int16()),
        _scalar("INT32", "int_data", 32, pa.int32()),
        _scalar("INT64", "long_data", 64, pa.int64()),
        _scalar("FLOAT", "float_data", 32, pa.float32(), distinct=False),
        _scalar("DOUBLE", "double_data", 64, pa.float64(), distinct=False),
        _scalar("VARCHAR", "string_data", 0, pa.string()),
        _scalar("JSON", "json_data", 0, DOCUMENT, pa.string(), distinct=False),
        FieldType("ARRAY", "array", "array_data", 32, np.dtype("<f4"), parquet=_FLOATS),
        _dense("FLOAT_VECTOR", 32, "<f4", _FLOATS),
        _dense("FLOAT16_VECTOR", 16, "<f2", BYTES),
        _dense("BFLOAT16_VECTOR", 16, "<u2"),
        _dense("INT8_VECTOR", 8, "i1"),
        _dense("BINARY_VECTOR", 1, "u1", BYTES),
        # in Parquet as JSON: {"dimension": weight}
        FieldType("SPARSE_FLOAT_VECTOR", "sparse", "sparse_float_vector", 0, parquet=pa.string()),
    )
}
DENSE_SLOTS = {field_type.slot: field_type for field_type in TYPES.values() if field_type.layout == "dense"}
ARROW_TYPES = {name: field_type.arrow for name, field_type in TYPES.items() if field_type.layout == "scalar"}
ELEMENT_TYPES = tuple(name for name in ARROW_TYPES if name != "JSON")  # of arrays


def type_of(number: int) -> FieldType | None:
    """The type with this number in Milvus's protocol; None if Alula does not use it.

    Placeholders of queries have the same numbers as fields.
    """
    try:
        return TYPES.get(DataType(number).name)
    except ValueError:
        return None


def field_spec(name: str, data_type: str, **params: Any) -> FieldSpec:
    """The `FieldSpec` of a field with the bytes that its type takes.

    Args:
        name: The field's name.
        data_type: A key of `TYPES`.
        params: Parameters of the type, such as ``dim``.
    """
    return FieldSpec(name, data_type, TYPES[data_type].bytes_per_row(params.get("dim", 1)), params)


def arrow_field(spec: FieldSpec) -> pa.Field:
    """The Arrow field of a field, with its Milvus type in the metadata."""
    arrow_type = TYPES[spec.data_type].arrow_type(spec.params.get("dim"), spec.params.get("element_type", "FLOAT"))
    return pa.field(spec.name, arrow_type, metadata={MILVUS_TYPE: spec.data_type})
