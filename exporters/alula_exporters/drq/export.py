"""Export a quantiser to one ONNX file, and compare it with the torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alula.encoders import DrqEncoder, DrqQueries, DrqRows, EncoderInfo, FlopsEncoder
from alula.errors import EncoderError
from alula_exporters.data import F32
from alula_exporters.drq.graph import build_graph
from alula_exporters.drq.model import Quantizer
from alula_exporters.drq.signs import SignBits
from alula_exporters.onnx_export import export_encoder, versions
from alula_exporters.training import Trained

MAX_WORSE = 0.01  # of the mean quantisation error: a tie at one level can lead the two searches to different codes
ROUNDING = 1e-6  # of float32 sums, for rows and directions of length 1
MIN_SAME_SIGNS = 0.999
MAX_ERROR = 1e-4  # of norms, tables and estimates by signs, in units of the encoder's scale


def export_drq(trained: Trained[Quantizer], path: Path, *, force: bool = False) -> EncoderInfo:
    """Write a trained quantiser, atomically, as an ``.onnx`` file with parity figures.

    Args:
        trained: From `train_drq`.
        path: The file to write.
        force: Replace an existing file.

    Returns:
        The metadata of the file.

    Raises:
        UsageError: If the file exists and ``force`` is not set, its folder is missing, or the backbone cannot be
            exported.
        EncoderError: If the file and the torch module disagree.
    """
    model = trained.model
    beam = int(trained.training["recipe"]["beam"])
    bits, dim = model.signs.projection.shape
    info = EncoderInfo(
        kind="drq",
        metric=model.metric,
        input_dim=dim,
        normalized=model.metric == "COSINE",
        scale=model.scale,
        levels=model.levels,
        sign_bits=bits,
        training=trained.training,
        versions=versions(),
    )
    vectors, features = trained.parity_rows()

    def check(encoder: FlopsEncoder | DrqEncoder) -> dict[str, Any]:
        assert isinstance(encoder, DrqEncoder)  # noqa: S101 (for the type checker)
        return _parity(model, encoder, vectors, features, beam)

    front = trained.front()
    return export_encoder(build_graph(model, beam, front), info, path, check=check, force=force)


@torch.no_grad()
def _parity(model: Quantizer, encoder: DrqEncoder, vectors: F32, features: F32, beam: int) -> dict[str, Any]:
    """Compare file and module: equal quantisation error, not equal codes, is required.

    Once nothing is left to code, any codeword near 0 serves, so later levels may differ between the two.
    """
    prepared = model.prepare(torch.from_numpy(features))
    codes = model.encode(prepared, beam)
    rows, queries = encoder.encode_rows(vectors), encoder.encode_queries(vectors)
    file_codes = torch.from_numpy(rows.codes.astype(np.int64))
    reconstructions = model(file_codes)
    found, expected = (_squared_error(prepared, x_hat[:, -1]) for x_hat in (reconstructions, model(codes)))
    norm_error = float(np.abs(rows.norms - reconstructions.norm(dim=2).numpy()).max())
    table_error = float(np.abs(queries.lut - model.tables(prepared).numpy()).max())
    sign_error = _sign_error(model.signs, prepared, rows, queries)
    signs, query_signs = (_same_signs(model.signs, prepared, packed) for packed in (rows.signs, queries.signs))
    rounding = ROUNDING * max(1.0, float(prepared.double().square().sum(1).mean()))
    if (
        not found <= (1 + MAX_WORSE) * expected + rounding
        or min(signs, query_signs) < MIN_SAME_SIGNS
        or not max(norm_error, table_error, sign_error) < MAX_ERROR
    ):
        raise EncoderError(
            f"The ONNX graph does not compute what the trained module does: its quantisation error is "
            f"{found:.4g} instead of {expected:.4g}, {min(signs, query_signs):.2%} of sign bits agree, norms differ by "
            f"up to {norm_error:.2g}, look-up tables by up to {table_error:.2g} and estimates by signs by up to "
            f"{sign_error:.2g}. Nothing was written; please report this."
        )
    return {
        "rows": len(vectors),
        "same_codes": float((file_codes == codes).all(1).float().mean()),
        "error_difference": found - expected,
        "max_norm_error": norm_error,
        "max_lut_error": table_error,
        "max_sign_error": sign_error,
        "same_sign_bits": signs,
        "same_query_sign_bits": query_signs,
    }


def _squared_error(prepared: Tensor, x_hat: Tensor) -> float:
    """Mean squared distance of rows from their reconstructions, float32 (n, d) each."""
    return float((prepared - x_hat).double().square().sum(1).mean())


def _sign_error(signs: SignBits, prepared: Tensor, rows: DrqRows, queries: DrqQueries) -> float:
    """The largest error of the weights, biases and lengths of estimates by signs."""
    pairs = [
        (signs.weights(prepared), queries.sign_weights),
        (signs.bias(prepared), queries.sign_bias),
        (signs.lengths(prepared), rows.sign_lengths),
    ]
    return max(float(np.abs(expected.numpy() - found).max()) for expected, found in pairs)


def _same_signs(signs: SignBits, prepared: Tensor, packed: npt.NDArray[np.uint8]) -> float:
    """Share of equal sign bits; a projection of 0 up to rounding may have either."""
    projections = signs(prepared)
    found = torch.from_numpy(np.unpackbits(packed, axis=1)).bool()
    unsure = projections.abs() <= ROUNDING * projections.square().mean().sqrt()
    return float(((found == (projections > 0)) | unsure).float().mean())
