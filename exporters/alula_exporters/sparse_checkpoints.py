"""Export sparse text encoders of sentence-transformers as ``flops`` encoder files.

SPLADE (Formal et al., SIGIR 2021, arXiv:2107.05720 and 2109.10086): a masked language model's logits w_ij for token i
and vocabulary entry j become one weight per entry, max_i (or sum_i) log(1 + ReLU(w_ij)); these are ``vectors``, and a
row keeps the heaviest. Inference-free SPLADE (Geng et al., arXiv:2411.04403) takes the weights of queries from a table,
one for each token; they are ``query_vectors``. CSR (Wen et al., ICML 2025, arXiv:2503.01776): a sparse autoencoder's
top k of W (x - b_pre) + b, where x is the text's embedding; that embedding is ``vectors``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from torch import Tensor, nn

from alula.encoders import DrqEncoder, EncoderInfo, FlopsEncoder, Metric
from alula.encoders.contract import QUERY_VECTORS, QUERY_VECTORS_VERSION
from alula.errors import EncoderError, UsageError
from alula_exporters.backbones.text import (
    TextBackbone,
    check_modules,
    open_checkpoint,
    text_backbone,
    tokenizer_json,
)
from alula_exporters.flops.export import add_sparse_rows
from alula_exporters.flops.model import FLOOR
from alula_exporters.onnx_export import GraphBuilder, export_encoder, versions
from alula_exporters.output_file import check_out_path

MAX_NNZ = 256  # where the model does not say; SPLADE's rows have about half as many
MAX_WEIGHT_ERROR = 1e-4  # as a share of the heaviest weight
_METRICS: dict[str, Metric] = {"dot": "IP", "cosine": "COSINE"}

# Short and long, of many and of no words, longer than any model reads: what tokenizers and pooling may do differently.
SAMPLE_TEXTS = (
    "A kite hangs in the wind above the ridge.",
    "The alula is a small group of feathers on the leading edge of a wing.",
    "Can a large bird land slowly?",
    "which index needs the least memory",
    "Prices rose by 3.5 % in 2024, to $1,299.00 (before tax).",
    "WARNING: do NOT open the valve!!!",
    "Les oiseaux migrateurs traversent la Méditerranée au printemps.",
    "東京の天気は晴れです。",
    "naïve café, Zürich, „Anführung“ 😀",
    "x",
    "",
    "   spaces   before and after   ",
    "first line\nsecond line\tand a tab",
    "https://example.org/path?query=1&page=2",
    " ".join(f"word{number} stone river light" for number in range(2000)),
    "the " * 40,
)


@dataclass(frozen=True)
class SparseModel:
    """A sparse text encoder that can be exported.

    Args:
        model: The ``SparseEncoder``.
        modules: Its modules for rows, a ``Transformer`` first.
        static: The ``SparseStaticEmbedding`` of queries; None where queries pass through ``modules``.
        metric: IP or COSINE.
    """

    model: Any
    modules: Sequence[Any]
    static: Any | None
    metric: Metric

    @property
    def csr(self) -> bool:
        """True if the model is CSR, whose autoencoder is the head of the file."""
        return type(self.modules[-1]).__name__ == "SparseAutoEncoder"

    def backbone(self) -> TextBackbone:
        """From tokens to the file's vectors: vocabulary weights, or CSR's embedding."""
        *others, last = self.modules
        return text_backbone(self.model, others if self.csr else [*others, _Pooling(last)])

    def max_nnz(self, wanted: int | None, dim: int) -> int:
        """Most non-zeros in a row: the wanted ones, within the model's own limit."""
        own = self.model.max_active_dims
        return min(wanted or own or MAX_NNZ, own or dim, dim)


def export_checkpoint(
    folder: Path, path: Path, *, max_nnz: int | None = None, texts: Sequence[str] = SAMPLE_TEXTS, force: bool = False
) -> EncoderInfo:
    """Write a sentence-transformers SparseEncoder, atomically, as an ``.onnx`` file.

    The file includes its parity figures.

    Args:
        folder: See `open_sparse_model`.
        path: The file to write.
        max_nnz: Most non-zeros in a row, the heaviest; None for the model's own limit, or 256.
        texts: Texts to compare file and model on, as rows and as queries.
        force: Replace an existing file.

    Returns:
        The metadata of the file.

    Raises:
        UsageError: If the model is of another kind or cannot be exported, or the file exists and ``force`` is not set.
        AlulaError: If the package sentence-transformers is missing.
        EncoderError: If the file and the model disagree.
    """
    check_out_path(path, force=force)
    return export_sparse_model(open_sparse_model(folder), path, max_nnz=max_nnz, texts=texts, force=force)


def open_sparse_model(folder: Path) -> SparseModel:
    """Open a sentence-transformers SparseEncoder that can be exported.

    Args:
        folder: Output of ``SparseEncoder.save_pretrained``: SPLADE (a masked language model and ``SpladePooling``),
            the same with queries by ``SparseStaticEmbedding`` (a ``Router``), or CSR (a transformer, pooling and
            ``SparseAutoEncoder``).

    Raises:
        UsageError: If the model is of another kind.
        AlulaError: If the package sentence-transformers is missing.
    """
    model = open_checkpoint(folder, "SparseEncoder")
    from sentence_transformers.sparse_encoder import modules as kinds  # noqa: PLC0415 (seconds)

    modules, static = _routes(list(model.children()))
    check_modules(modules)
    metric = _METRICS.get(model.similarity_fn_name)
    if metric is None:
        raise UsageError(
            f"The model compares by '{model.similarity_fn_name}', and an inverted index only by the inner product; set "
            "its similarity_fn_name to 'dot' or 'cosine'."
        )
    if not isinstance(modules[-1], kinds.SpladePooling | kinds.SparseAutoEncoder):
        raise UsageError(
            f"The model ends with {type(modules[-1]).__name__}, and only SPLADE (SpladePooling) and CSR "
            "(SparseAutoEncoder) can be exported."
        )
    found = SparseModel(model, modules, static, metric)
    if found.csr and static is not None:
        raise UsageError("The model's queries are a table of token weights, and its rows are latents of a CSR model.")
    return found


def export_sparse_model(
    sparse: SparseModel,
    path: Path,
    *,
    max_nnz: int | None = None,
    training: Mapping[str, Any] = MappingProxyType({}),
    texts: Sequence[str] = SAMPLE_TEXTS,
    force: bool = False,
) -> EncoderInfo:
    """Write an open model as an ``.onnx`` file; see `export_checkpoint`.

    Args:
        sparse: The model.
        path: The file to write.
        max_nnz: Most non-zeros in a row.
        training: Summary of a training by Alula.
        texts: Texts to compare file and model on.
        force: Replace an existing file.
    """
    model, csr, last = sparse.model, sparse.csr, sparse.modules[-1]
    front = sparse.backbone().front()
    dim = last.hidden_dim if csr else front.dim
    nnz = sparse.max_nnz(max_nnz, dim)
    graph = GraphBuilder("csr" if csr else "splade", front.dim, front)
    latents = _add_autoencoder(graph, last) if csr else graph.vectors
    _add_rows(graph, latents, nnz, unit=sparse.metric == "COSINE")
    if sparse.static is not None:
        _check_static(sparse.static, sparse.modules[0].tokenizer, dim)
        _add_static_queries(graph, sparse.static.weight.detach().numpy())
    info = EncoderInfo(
        kind="flops",
        metric=sparse.metric,
        input_dim=front.dim,
        normalized=sparse.metric == "COSINE",
        dim=dim,
        max_nnz=nnz,
        training={
            "exported_from": "sentence-transformers SparseEncoder",
            "modules": ", ".join(type(module).__name__ for module in sparse.modules),
            "similarity": model.similarity_fn_name,
            **training,
        },
        versions=versions("sentence-transformers", "transformers"),
        **_query_fields(sparse.static),
    )

    def check(encoder: FlopsEncoder | DrqEncoder) -> dict[str, Any]:
        assert isinstance(encoder, FlopsEncoder)  # noqa: S101 (for the type checker)
        return _parity(model, encoder, list(texts))

    return export_encoder(graph, info, path, check=check, force=force)


class _Pooling(nn.Module):
    """``SpladePooling`` for any number of tokens: without its loop over parts.

    Args:
        pooling: The ``SpladePooling``.
    """

    def __init__(self, pooling: Any) -> None:
        super().__init__()
        self.largest = pooling.pooling_strategy == "max"
        self.logarithms = 2 if pooling.activation_function == "log1p_relu" else 1

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pool logits, float32 (n, t, V), to weights of the vocabulary, float32 (n, V)."""
        x = features["token_embeddings"] * features["attention_mask"].unsqueeze(-1)
        if self.largest:  # first, as what follows grows with x: t times less of it to compute
            x = x.amax(dim=1)
        x = x.relu()
        for _ in range(self.logarithms):
            x = x.log1p()
        return {"sentence_embedding": x if self.largest else x.sum(dim=1)}


def _routes(modules: list[Any]) -> tuple[list[Any], Any | None]:
    """The modules of rows, and the ``SparseStaticEmbedding`` of queries, if any."""
    from sentence_transformers.base.modules import Router  # noqa: PLC0415 (seconds)
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding  # noqa: PLC0415

    if len(modules) != 1 or not isinstance(modules[0], Router):
        return modules, None
    routes: Any = modules[0].sub_modules
    if set(routes) != {"query", "document"} or [type(part) for part in routes["query"]] != [SparseStaticEmbedding]:
        return modules, None
    return list(routes["document"]), routes["query"][0]


def _query_fields(static: Any | None) -> dict[str, Any]:
    """Fields of `EncoderInfo` for queries that are a table of token weights."""
    if static is None:
        return {}
    most = min(static.tokenizer.model_max_length, 2**20)  # a tokenizer without a limit says 10^30
    return {"query_max_tokens": int(most), "format_version": QUERY_VECTORS_VERSION}


def _check_static(static: Any, tokenizer: Any, dim: int) -> None:
    """Raise a `UsageError` if queries have other tokens or dimensions than rows."""
    ways = [json.loads(tokenizer_json(one)) for one in (static.tokenizer, tokenizer)]
    parts = ("normalizer", "pre_tokenizer", "model", "added_tokens")
    if [ways[0].get(part) for part in parts] != [ways[1].get(part) for part in parts]:
        raise UsageError("The model splits queries into other tokens than rows, and an encoder file has one tokenizer.")
    if len(static.weight) != dim:
        raise UsageError(
            f"The model has weights for {len(static.weight):,} tokens of queries, and its rows have {dim:,} "
            "dimensions; a model whose vocabulary differs between them cannot be exported."
        )


def _add_static_queries(graph: GraphBuilder, weights: npt.NDArray[np.float32]) -> None:
    """Output ``query_vectors`` (n, V): the weight of each token of a query."""
    rows = graph.node("Shape", "input_ids", start=0, end=1)
    shape = graph.node("Concat", rows, graph.constant(np.array([len(weights)], np.int64)), axis=0)
    mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    nothing = graph.node("ConstantOfShape", shape)
    present = graph.node("ScatterElements", nothing, "input_ids", mask, axis=1, reduction="max")
    vectors = graph.node("Mul", present, graph.constant(weights.astype(np.float32), "query_weights"))
    graph.output(QUERY_VECTORS, vectors, np.float32, ["n", len(weights)])


def _add_autoencoder(graph: GraphBuilder, autoencoder: nn.Module) -> str:
    """Nodes of ``SparseAutoEncoder`` before its top k; returns latents (n, dim)."""
    weights = {name: tensor.detach().numpy() for name, tensor in autoencoder.named_parameters()}
    x = graph.vectors
    if autoencoder.normalize:
        axis = graph.constant(np.array([1], np.int64))
        x = graph.node("Sub", x, graph.node("ReduceMean", x, axis, keepdims=1))
        # with Bessel's correction, as torch has it
        root = graph.constant(np.float32(np.sqrt(len(weights["pre_bias"]) - 1)))
        deviation = graph.node("Div", graph.node("ReduceL2", x, axis, keepdims=1), root)
        x = graph.node("Div", x, graph.node("Add", deviation, graph.constant(np.float32(1e-5))))
    x = graph.node("Sub", x, graph.constant(weights["pre_bias"]))
    matrix = graph.constant(np.ascontiguousarray(weights["encoder.weight"].T), "weight")
    return graph.node("Gemm", x, matrix, graph.constant(weights["latent_bias"]))


def _add_rows(graph: GraphBuilder, latents: str, nnz: int, *, unit: bool) -> None:
    """Outputs: each row's ``nnz`` heaviest positive latents, scaled if ``unit``."""
    weights, dims = graph.nodes("TopK", latents, graph.constant(np.array([nnz], np.int64)), count=2, axis=1)
    floor = np.zeros(nnz, np.float32)
    floor[0] = FLOOR  # a row without any weight would never be found
    weights = graph.node("Max", weights, graph.constant(floor))
    if unit:
        axis = graph.constant(np.array([1], np.int64))
        weights = graph.node("Div", weights, graph.node("ReduceL2", weights, axis, keepdims=1))
    add_sparse_rows(graph, weights, dims)


def _parity(model: Any, encoder: FlopsEncoder, texts: list[str]) -> dict[str, Any]:
    """The file against the model, from texts to sparse rows, as rows and as queries."""
    figures: dict[str, Any] = {"texts": len(texts)}
    for name, encode in (("row", model.encode_document), ("query", model.encode_query)):
        expected = encode(texts, max_active_dims=encoder.info.max_nnz, convert_to_sparse_tensor=False).numpy()
        if encoder.info.normalized:
            expected = expected / np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), FLOOR)
        found = encoder.encode_rows(encoder.embed(texts, queries=name == "query")).toarray()
        error = _weight_error(found, expected, encoder.info.max_nnz)
        same = float(((found > 0) == (expected > 0)).all(axis=1).mean())
        if not error <= MAX_WEIGHT_ERROR:
            raise EncoderError(
                f"The ONNX file does not compute what sentence-transformers does: the weights of a {name} differ by up "
                f"to {error:.2g} of the heaviest, and {same:.0%} of {len(texts)} texts have the same dimensions. "
                "Nothing was written; please report this."
            )
        figures |= {f"max_{name}_weight_error": error, f"same_{name}_dims": same}
    return figures


def _weight_error(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], nnz: int) -> float:
    """The largest difference of weights, as a share of the heaviest one.

    Of two dimensions that nearly tie for the last place of a full row, either may be kept: one that only one side kept
    is compared with the lightest weight that was kept, for a row that is full, or else with 0.

    Args:
        found: float32 (n, dim).
        expected: float32 (n, dim).
        nnz: Most non-zeros in a row.
    """
    lightest = np.zeros((len(expected), 1), np.float32)
    full = (expected > 0).sum(axis=1) >= nnz
    lightest[full, 0] = np.where(expected[full] > 0, expected[full], np.inf).min(axis=1, initial=np.inf)
    one_sided = (found > 0) != (expected > 0)
    difference = np.where(one_sided, np.maximum(found, expected) - lightest, found - expected)
    difference[~(expected > 0).any(axis=1)] = 0  # an empty row, which the file may not have
    return float(np.abs(difference).max(initial=0) / max(float(expected.max(initial=0)), FLOOR))
