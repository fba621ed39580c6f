"""Load an encoder file and run it: images or text to vectors, vectors to sparse rows or codes, queries to what is sent.

The graph is cut into three: inputs to ``vectors``, ``vectors`` to the row outputs, ``vectors`` to the query outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import scipy.sparse as sp

from alula.encoders.contract import QUERY_OUTPUTS, ROW_OUTPUTS, TOKENIZER_KEY, VECTORS, EncoderInfo, read_model
from alula.encoders.graph import cut
from alula.encoders.preprocessing import Feed, Tokenizer, check_images, check_texts, image_feeds
from alula.errors import DataError, EncoderError

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Inputs: TypeAlias = "F32 | U8 | list[str]"  # what an encoder takes: vectors, images or texts

PROBE_TEXTS = ("two words", "a text of some more words than that, and 3 numbers: 1, 2, 3", "", "one")


@dataclass(frozen=True)
class DrqRows:
    """Rows encoded by a ``drq`` encoder.

    Args:
        codes: uint8 (n, M): one codeword number per level.
        norms: float32 (n, M): Euclidean norm of the reconstruction by each prefix, in units of the encoder's scale.
        signs: uint8 (n, S / 8): sign bits of the rotated reconstruction, packed most significant bit first.
    """

    codes: U8
    norms: F32
    signs: U8


@dataclass(frozen=True)
class DrqQueries:
    """Queries encoded by a ``drq`` encoder.

    Args:
        lut: float32 (n, M, 256): inner product of the (normalised or scaled) query with each scaled codeword.
        signs: uint8 (n, S / 8): sign bits of the rotated query.
        norms: float32 (n,): Euclidean norm of the query as the encoder saw it (1 where it normalises).
    """

    lut: F32
    signs: U8
    norms: F32


class Encoder:
    """An encoder file, loaded and checked.

    The file is cut into a graph for the embedding, one for rows and one for queries, because onnxruntime computes
    every output of a graph whatever outputs are asked for. Sessions are made on first use.

    Args:
        path: The ``.onnx`` file.
        model: What it holds.
        info: What it says of itself.
        threads: Threads onnxruntime may use for one call; 0 lets it choose.
    """

    kind: ClassVar[str] = ""

    def __init__(self, path: Path, model: onnx.ModelProto, info: EncoderInfo, *, threads: int = 0) -> None:
        self.path = path
        self.info = info
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.model = model
        self.threads = threads
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}
        self._tokenizer: Tokenizer | None = None

    def embed(self, inputs: Any, *, queries: bool = False, progress: Callable[[int], None] | None = None) -> F32:
        """What the encoder takes, as vectors.

        Args:
            inputs: As `check_inputs` takes them.
            queries: Whether they are queries: a text then gets the prompt of queries, and errors call them so.
            progress: Called with the number of images or texts embedded so far, every few of them.

        Returns:
            float32 (n, d): vectors as they are, or the backbone's embeddings of images or texts.

        Raises:
            DataError: If the inputs are not what the encoder takes.
            EncoderError: If the backbone fails, or gives something else than finite vectors.
        """
        checked = self.check_inputs(inputs, what="queries" if queries else None)
        if self.info.input == "vectors":
            return cast(F32, checked)
        vectors = np.empty((len(checked), self.info.input_dim), np.float32)
        done = 0
        for places, feed in self._feeds(checked, self.info.query_prompt if queries else self.info.row_prompt):
            (part,) = self._run((VECTORS,), feed)
            self._check_output(VECTORS, part, (len(places), self.info.input_dim), np.float32)
            vectors[places] = part
            done += len(places)
            if progress:
                progress(done)
        return vectors

    def check_inputs(self, inputs: Any, *, what: str | None = None) -> Inputs:
        """What the encoder takes, checked but not run.

        Args:
            inputs: Vectors as `check_vectors` takes them; images, uint8 (n, h, w, c) or (h, w, c) for one; a sequence
                of strings, or one string.
            what: How an error names them.

        Returns:
            float32 (n, d), uint8 (n, h, w, c), or a list of n strings.

        Raises:
            DataError: If they are not that.
        """
        if self.info.input == "images":
            return check_images(inputs, self.info.image_shape, what=what or "images", encoder=self.path.name)
        if self.info.input == "text":
            return check_texts(inputs, what=what or "texts", encoder=self.path.name)
        return self.check_vectors(inputs, what=what or "vectors")

    def _feeds(self, inputs: Any, prompt: str) -> Iterator[Feed]:
        if self.info.input == "images":
            return image_feeds(inputs)
        if self._tokenizer is None:
            json = next(entry.value for entry in self.model.metadata_props if entry.key == TOKENIZER_KEY)
            self._tokenizer = Tokenizer(json, self.info.max_tokens, encoder=str(self.path))
        return self._tokenizer.feeds([prompt + text for text in inputs], self.info.input_dim)

    def check_vectors(self, vectors: npt.ArrayLike, *, what: str = "vectors") -> F32:
        """Vectors as a finite, contiguous float32 (n, d) array.

        Args:
            vectors: Array-like (n, d), or (d,) for one vector.
            what: How an error names them.

        Raises:
            DataError: If they are not numbers, have another dimension, or hold NaN or infinite values.
        """
        try:
            given = np.asarray(vectors)
            if given.dtype.kind in "bcmMSU":  # numpy would convert them without a word
                raise TypeError
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
                array = np.ascontiguousarray(given, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            raise DataError(f"The {what} are not an array of numbers of one length.") from None
        if array.ndim == 1:
            array = array[None, :]
        if array.ndim != 2 or array.shape[1] != self.info.input_dim:
            got = "x".join(map(str, array.shape[1:])) if array.ndim > 1 else "0"
            raise DataError(
                f"The {what} have dimension {got}, and the encoder {self.path.name} takes {self.info.input_dim}."
            )
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise DataError(
                f"The {what} hold NaN or infinite values ({int((~finite).sum())} rows, the first is row {row}); "
                "remove or mend those rows."
            )
        return array

    def _run(self, outputs: tuple[str, ...], feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        if outputs not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 4  # its errors become sentences; nothing goes to the terminal beside them
            try:
                self._sessions[outputs] = onnxruntime.InferenceSession(
                    cut(self.model, feed, outputs).SerializeToString(), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's errors have no public base class
                newer = any(sign in str(error) for sign in ("opset", "IR version"))
                hint = "; update onnxruntime, or train it with a lower --opset" if newer else ""
                raise EncoderError(
                    f"Cannot use the encoder {self.path}: onnxruntime {onnxruntime.__version__} refuses it{hint} "
                    f"({_one_line(error)})."
                ) from None
        try:
            arrays = list(self._sessions[outputs].run(list(outputs), dict(feed)))
        except Exception as error:
            raise EncoderError(f"The encoder {self.path} failed while encoding ({_one_line(error)}).") from None
        for name, array in zip(outputs, arrays, strict=True):
            if not isinstance(array, np.ndarray):
                raise self._broken(f"{name} is not a tensor")
        return arrays

    def _broken(self, detail: str) -> EncoderError:
        return EncoderError(f"The encoder {self.path} breaks the contract: {detail}.")

    def _check_output(self, name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: type) -> None:
        if array.shape != shape or array.dtype != dtype:
            raise self._broken(f"{name} is {array.dtype} {array.shape}, and {np.dtype(dtype)} {shape} was expected")
        if not np.isfinite(array).all():
            raise self._broken(f"{name} holds values that are not finite")

    def self_test(self) -> None:
        """Embed a few images or texts, encode a few vectors, a zero vector among them, and check what comes out.

        Raises:
            EncoderError: If an output breaks the contract.
        """
        if self.info.input == "vectors":
            return
        probes = _probe_images(self.info.image_shape) if self.info.input == "images" else PROBE_TEXTS
        for some in (probes, probes[:1]):  # a graph of a fixed batch takes only one of them
            self.embed(some)
            self.embed(some, queries=True)


class FlopsEncoder(Encoder):
    """A sparse encoder: vectors to non-negative sparse rows, the same for rows and queries."""

    kind = "flops"

    def encode_rows(self, vectors: npt.ArrayLike) -> sp.csr_array:
        """Encode vectors (n, d) to a float32 CSR array (n, dim) with sorted indices and no explicit zeros."""
        array = self.check_vectors(vectors)
        if not len(array):
            return sp.csr_array((0, self.info.dim), dtype=np.float32)
        rows, dims, weights = self._run(ROW_OUTPUTS["flops"], {VECTORS: array})
        if not (rows.ndim == dims.ndim == weights.ndim == 1 and len(rows) == len(dims) == len(weights)):
            raise self._broken("rows, dims and weights are not three lists of one length")
        if (rows.dtype.kind, dims.dtype.kind, weights.dtype.kind) != ("i", "i", "f"):
            raise self._broken(
                f"rows, dims and weights are {rows.dtype}, {dims.dtype} and {weights.dtype}, and int64, int64 and "
                "float32 were expected"
            )
        if len(rows) and (rows.min() < 0 or rows.max() >= len(array) or dims.min() < 0 or dims.max() >= self.info.dim):
            raise self._broken("a non-zero lies outside the sparse matrix")
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise self._broken("a weight is negative or not finite, which Milvus does not take")
        matrix = sp.csr_array(
            (weights.astype(np.float32), (rows, dims)), shape=(len(array), self.info.dim), dtype=np.float32
        )
        matrix.eliminate_zeros()
        matrix.sort_indices()
        counts = np.diff(matrix.indptr)
        if (counts == 0).any():
            raise self._broken("a row is empty, and Milvus would never find it")
        if (counts > self.info.max_nnz).any():
            raise self._broken(f"a row has more than {self.info.max_nnz} non-zeros")
        return matrix

    encode_queries = encode_rows

    def self_test(self) -> None:
        """See `Encoder.self_test`."""
        super().self_test()
        vectors = _probe_vectors(self.info.input_dim)
        for some in (vectors, vectors[:1]):  # a graph of a fixed batch takes only one of them
            self.encode_rows(some)


class DrqEncoder(Encoder):
    """A recurrent quantiser: vectors to codes of which every prefix is a code, queries to look-up tables."""

    kind = "drq"

    def encode_rows(self, vectors: npt.ArrayLike) -> DrqRows:
        """Encode vectors (n, d) to codes, prefix norms and sign bits."""
        array = self.check_vectors(vectors)
        n, levels, sign_bytes = len(array), self.info.levels, self.info.sign_bits // 8
        if not n:
            return DrqRows(
                np.empty((0, levels), np.uint8), np.empty((0, levels), np.float32), np.empty((0, sign_bytes), np.uint8)
            )
        codes, norms, signs = self._run(ROW_OUTPUTS["drq"], {VECTORS: array})
        self._check_output("codes", codes, (n, levels), np.uint8)
        self._check_output("norms", norms, (n, levels), np.float32)
        self._check_output("signs", signs, (n, sign_bytes), np.uint8)
        return DrqRows(codes, norms, signs)

    def encode_queries(self, vectors: npt.ArrayLike) -> DrqQueries:
        """Encode queries (n, d) to look-up tables and sign bits."""
        array = self.check_vectors(vectors, what="queries")
        n = len(array)
        norms = (
            np.ones(n, np.float32) if self.info.normalized else np.linalg.norm(array, axis=1) / self.info.scale
        ).astype(np.float32)
        if not n:
            return DrqQueries(
                np.empty((0, self.info.levels, 256), np.float32),
                np.empty((0, self.info.sign_bits // 8), np.uint8),
                norms,
            )
        lut, signs = self._run(QUERY_OUTPUTS["drq"], {VECTORS: array})
        self._check_output("lut", lut, (n, self.info.levels, 256), np.float32)
        self._check_output("query_signs", signs, (n, self.info.sign_bits // 8), np.uint8)
        return DrqQueries(lut, signs, norms)

    def self_test(self) -> None:
        """See `Encoder.self_test`."""
        super().self_test()
        vectors = _probe_vectors(self.info.input_dim)
        for some in (vectors, vectors[:1]):  # a graph of a fixed batch takes only one of them
            self.encode_rows(some)
            self.encode_queries(some)


_CLASSES: dict[str, type[FlopsEncoder | DrqEncoder]] = {cls.kind: cls for cls in (FlopsEncoder, DrqEncoder)}


def load_encoder(path: str | Path, *, threads: int = 0) -> FlopsEncoder | DrqEncoder:
    """Open an encoder file, check its contract and try it on a few vectors.

    Args:
        path: The ``.onnx`` file.
        threads: Threads onnxruntime may use for one call; 0 lets it choose.

    Raises:
        EncoderError: If the file is missing, truncated, not an encoder, or breaks the contract.
    """
    path = Path(path)
    model, info = read_model(path)
    encoder = _CLASSES[info.kind](path, model, info, threads=threads)
    encoder.self_test()
    return encoder


def _probe_images(shape: Sequence[int]) -> U8:
    return np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)


def _probe_vectors(dim: int) -> F32:
    vectors = np.random.default_rng(0).standard_normal((4, dim)).astype(np.float32)
    vectors[-1] = 0.0
    return vectors


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
