"""Index types: recipes to store, search and rank encoded vectors in Milvus."""

from alula.index_types.base import (
    Candidates,
    Column,
    IndexType,
    Lowering,
    SearchPlan,
    Storage,
    VectorField,
    choose_storage,
    vector_index,
    vector_spec,
)
from alula.index_types.capabilities import Capabilities, Probe, binary_probe, sparse_probe
from alula.index_types.local import EncodedRows, LocalIndex
from alula.index_types.native import FieldSpec, NativeIndex
from alula.index_types.options import (
    COMMON_SEARCH_OPTIONS,
    MAX_RESULTS,
    Option,
    Sweep,
    candidate_counts,
    candidate_options,
    check_options,
)
from alula.index_types.registry import index_type, index_type_for, index_types, probes
from alula.index_types.row_cost import (
    COMPARED,
    FREED,
    KEPT,
    RowCost,
    encoder_cost,
    fields_cost,
    key_cost,
    lowering_cost,
    native_cost,
)

__all__ = [
    "COMMON_SEARCH_OPTIONS",
    "COMPARED",
    "FREED",
    "KEPT",
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
    "Probe",
    "RowCost",
    "SearchPlan",
    "Storage",
    "Sweep",
    "VectorField",
    "binary_probe",
    "candidate_counts",
    "candidate_options",
    "check_options",
    "choose_storage",
    "encoder_cost",
    "fields_cost",
    "index_type",
    "index_type_for",
    "index_types",
    "key_cost",
    "lowering_cost",
    "native_cost",
    "probes",
    "sparse_probe",
    "vector_index",
    "vector_spec",
]
