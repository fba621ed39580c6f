"""Run an encoder file: inputs to vectors, vectors to encoded rows and queries.

The graph is cut into three: inputs to ``vectors``, ``vectors`` to the row outputs, ``vectors`` to the query outputs.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from alula.encoders.contract import QUERY_VECTORS, TOKENIZER_KEY, VECTORS, EncoderInfo, Kind
from alula.encoders.graph import cut
from alula.encoders.preprocessing import Feed, Tokenizer, check_images, check_texts, image_feeds
from alula.encoders.session import RUN_SECONDS, Session
from alula.errors import DataError, EncoderError

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Inputs: TypeAlias = "F32 | U8 | list[str]"  # vectors, images or texts
NativeQuery: TypeAlias = "bytes | dict[int, float]"  # packed bits, or the weights of sparse dimensions

# Small enough for a core's cache: a batch encoded in slices took 20 % less time than in one piece.
SLICE_ROWS = 1024

PROBE_TEXTS = ("two words", "a text of some more words than that, and 3 numbers: 1, 2, 3", "", "one")


class Encoder(ABC):
    """An encoder file, loaded and checked.

    The file is cut into a graph for the embedding, one for rows and one for queries, because onnxruntime computes
    every output of a graph whatever outputs are asked for. Sessions are created on first use.

    Args:
        path: The ``.onnx`` file.
        model: The parsed file.
        info: Its metadata.
        threads: Threads onnxruntime may use for one call; 0 lets it choose.
        run_seconds: Longest time of a batch; a batch that takes longer fails.
        sha256: The sha256 of the file; by default it is read again for it.

    Attributes:
        kind: The kind of encoder.
        native_type: The Milvus type of `native_rows`, e.g. ``SPARSE_FLOAT_VECTOR``.
        output_unit: The unit of `output_dim`, in the plural.
    """

    kind: ClassVar[Kind]
    native_type: ClassVar[str]
    output_unit: ClassVar[str]

    def __init__(
        self,
        path: Path,
        model: onnx.ModelProto,
        info: EncoderInfo,
        *,
        threads: int = 0,
        run_seconds: float = RUN_SECONDS,
        sha256: str | None = None,
    ) -> None:
        self.path = path
        self.info = info
        self.sha256 = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
        self.model = model
        self.threads = threads
        self.run_seconds = run_seconds
        self._sessions: dict[tuple[str, ...], Session] = {}
        self._tokenizers: dict[bool, Tokenizer] = {}

    @property
    @abstractmethod
    def output_dim(self) -> int:
        """The size of an encoded row, in units of `output_unit`."""

    @property
    @abstractmethod
    def output_size(self) -> str:
        """The most that a row can hold, in words; more of it means a higher recall."""

    @property
    @abstractmethod
    def output_details(self) -> Mapping[str, str]:
        """The parts of an encoded row, each with a name, for people."""

    @property
    def native_dim(self) -> int | None:
        """The ``dim`` of a field of `native_type`; None if such fields have none."""
        return None

    @abstractmethod
    def encode_rows(self, vectors: npt.ArrayLike, *, checked: bool = False) -> Any:
        """Encode vectors (n, d), checked or not."""

    @abstractmethod
    def encode_queries(self, vectors: npt.ArrayLike, *, checked: bool = False) -> Any:
        """Encode queries (n, d), checked or not."""

    @abstractmethod
    def native_rows(self, vectors: F32) -> Any:
        """Encode checked vectors (n, d) to a column of `native_type`.

        Returns:
            CSR (n, dim), or packed bits uint8 (n, bytes).
        """

    @abstractmethod
    def native_queries(self, vectors: F32) -> list[NativeQuery]:
        """Encode checked queries (n, d) to queries that Milvus takes for `native_rows`."""

    def embed(
        self,
        inputs: Any,
        *,
        queries: bool = False,
        checked: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> F32:
        """Embed inputs: vectors as they are, images and texts by the backbone.

        Args:
            inputs: Inputs as `check_inputs` takes them.
            queries: True for queries: texts get the prompt of queries, and errors say queries.
            checked: True for inputs as `check_inputs` returns them, which are not checked again.
            progress: Called with the number of images or texts embedded so far, every few of them.

        Returns:
            float32 (n, d).

        Raises:
            DataError: If the encoder does not take the inputs.
            EncoderError: If the backbone fails, or its output is not finite vectors.
        """
        given = inputs if checked else self.check_inputs(inputs, what="queries" if queries else None)
        if self.info.input == "vectors":
            return cast(F32, given)
        vectors = np.empty((len(given), self.info.input_dim), np.float32)
        done = 0
        output = QUERY_VECTORS if queries and self.info.query_max_tokens else VECTORS
        for places, feed in self._feeds(given, queries=queries):
            (part,) = self._run((output,), feed)
            self._check_output(output, part, (len(places), self.info.input_dim), np.float32)
            vectors[places] = part
            done += len(places)
            if progress:
                progress(done)
        return vectors

    def check_inputs(self, inputs: Any, *, what: str | None = None) -> Inputs:
        """Check inputs without running the encoder.

        Args:
            inputs: Vectors as `check_vectors` takes them; images, uint8 (n, h, w, c) or (h, w, c) for one; a sequence
                of strings, or one string.
            what: Their name in errors.

        Returns:
            float32 (n, d), uint8 (n, h, w, c), or a list of n strings.

        Raises:
            DataError: If the encoder does not take them.
        """
        if self.info.input == "images":
            return check_images(inputs, self.info.image_shape, what=what or "images", encoder=self.path.name)
        if self.info.input == "text":
            return check_texts(inputs, what=what or "texts", encoder=self.path.name)
        return self.check_vectors(inputs, what=what or "vectors")

    def _feeds(self, inputs: Any, *, queries: bool) -> Iterator[Feed]:
        if self.info.input == "images":
            return image_feeds(inputs)
        own = queries and self.info.query_max_tokens > 0
        if own not in self._tokenizers:
            json = next(entry.value for entry in self.model.metadata_props if entry.key == TOKENIZER_KEY)
            most = self.info.query_max_tokens if own else self.info.max_tokens
            self._tokenizers[own] = Tokenizer(json, most, special=not own, encoder=str(self.path))
        prompt = self.info.query_prompt if queries else self.info.row_prompt
        return self._tokenizers[own].feeds([prompt + text for text in inputs], self.info.input_dim)

    def check_vectors(self, vectors: npt.ArrayLike, *, what: str = "vectors") -> F32:
        """Convert vectors to a finite, contiguous float32 (n, d) array.

        Args:
            vectors: Array-like (n, d), or (d,) for one vector.
            what: Their name in errors.

        Raises:
            DataError: If they are not numbers, have another dimension, or contain NaN or infinite values.
        """
        try:
            given = np.asarray(vectors)
            if given.dtype.kind in "bcmMSU":  # numpy would convert them silently
                raise TypeError
            with np.errstate(over="ignore"):  # too large a number becomes infinite, and is refused below
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

    def checked_vectors(self, vectors: Any, checked: bool, what: str = "vectors") -> F32:
        """Vectors as `check_vectors` returns them, without a check if it was done."""
        if checked:
            return np.ascontiguousarray(vectors, np.float32)
        return self.check_vectors(vectors, what=what)

    def _run(self, outputs: tuple[str, ...], feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        if outputs not in self._sessions:
            part = cut(self.model, feed, outputs).SerializeToString()
            try:
                self._sessions[outputs] = Session(part, threads=self.threads, seconds=self.run_seconds)
            except Exception as error:  # onnxruntime's errors have no public base class
                newer = any(sign in str(error) for sign in ("opset", "IR version"))
                hint = "; update onnxruntime, or export the encoder again with this version of Alula" if newer else ""
                raise EncoderError(
                    f"Cannot use the encoder {self.path}: onnxruntime {onnxruntime.__version__} rejects it{hint} "
                    f"({_one_line(error)})."
                ) from None
        try:
            arrays = self._sessions[outputs].run(outputs, feed)
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
        """Encode a few vectors, images or texts, and check the outputs.

        Raises:
            EncoderError: If an output breaks the contract.
        """
        if self.info.input != "vectors":
            probes = _probe_images(self.info.image_shape) if self.info.input == "images" else PROBE_TEXTS
            for some in (probes, probes[:1]):  # a graph with a fixed batch size takes only one of them
                self.embed(some)
                self.embed(some, queries=True)
        vectors = _probe_vectors(self.info.input_dim)
        for few in (vectors, vectors[:1]):
            self._probe(few)

    def _probe(self, vectors: F32) -> None:
        """Encode a few vectors in every way."""
        self.encode_rows(vectors)


def slices(vectors: F32, rows: int | None = None) -> Iterator[F32]:
    """Cut vectors (n, d) into slices of `SLICE_ROWS` by default.

    An encoder's hidden layers are far larger than its rows.
    """
    step = rows or SLICE_ROWS
    for start in range(0, len(vectors), step):
        yield vectors[start : start + step]


def _probe_images(shape: Sequence[int]) -> U8:
    return np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)


def _probe_vectors(dim: int) -> F32:
    vectors = np.random.default_rng(0).standard_normal((4, dim)).astype(np.float32)
    vectors[-1] = 0.0
    return vectors


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
