"""Index types: named recipes for storing, searching and ranking encoded vectors in Milvus."""

from alula.index_types.base import (
    COMMON_SEARCH_OPTIONS,
    MAX_RESULTS,
    Candidates,
    Capabilities,
    Column,
    FieldSpec,
    IndexType,
    Lowering,
    NativeIndex,
    Option,
    SearchPlan,
    Storage,
    Sweep,
    VectorField,
    check_options,
    choose_storage,
    vector_index,
    vector_spec,
)
from alula.index_types.local import EncodedRows, LocalIndex
from alula.index_types.registry import index_type, index_types

__all__ = [
    "COMMON_SEARCH_OPTIONS",
    "MAX_RESULTS",
    "Candidates",
    "Capabilities",
    "Column",
    "EncodedRows",
    "FieldSpec",
    "IndexType",
    "LocalIndex",
    "Lowering",
    "NativeIndex",
    "Option",
    "SearchPlan",
    "Storage",
    "Sweep",
    "VectorField",
    "check_options",
    "choose_storage",
    "index_type",
    "index_types",
    "vector_index",
    "vector_spec",
]
