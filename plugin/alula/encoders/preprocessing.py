"""Check images and texts, tokenize, and cut them into batches of bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from alula.errors import AlulaError, DataError, EncoderError

U8 = npt.NDArray[np.uint8]
# The positions of some rows, and the graph's inputs for them.
Feed: TypeAlias = tuple[npt.NDArray[np.intp], Mapping[str, npt.NDArray[Any]]]

# A batch for the graph. Its hidden layers take a few hundred bytes per pixel; a head over a vocabulary has one vector
# per token of a text, which FLOATS bounds, and attention the square of a text's tokens.
IMAGES, PIXELS = 256, 1 << 20
TEXTS, TOKENS, FLOATS = 32, 4096, 1 << 26
# Texts to tokenize in one call: their tokens take some hundred bytes per character.
PIECE_TEXTS, PIECE_CHARACTERS = 4096, 1 << 20


def check_images(images: Any, shape: Sequence[int], *, what: str, encoder: str) -> U8:
    """Convert images to a contiguous uint8 (n, h, w, c) array.

    Args:
        images: Array-like (n, h, w, c), or (h, w, c) for one image; without the last axis where c is 1.
        shape: The height, width and channels that the encoder takes.
        what: The name of the images in errors.
        encoder: The name of the encoder in errors.

    Raises:
        DataError: If they are not uint8, or of another shape.
    """
    height, width, channels = shape
    try:
        array = np.asarray(images)
    except (ValueError, TypeError):
        raise DataError(f"The {what} are not an array of images of one shape.") from None
    if array.dtype != np.uint8:
        raise DataError(
            f"The {what} are {array.dtype}, and the encoder {encoder} takes pixels as uint8, from 0 to 255."
        )
    if channels == 1 and array.shape[-2:] == (height, width):
        array = array[..., None]
    if array.shape[-3:] != (height, width, channels) or array.ndim not in (3, 4):
        raise DataError(
            f"The {what} have shape {array.shape}, and the encoder {encoder} takes images of (height, width, channels) "
            f"= ({height}, {width}, {channels}), so (rows, {height}, {width}, {channels}); resize or crop them."
        )
    return np.ascontiguousarray(array.reshape(-1, height, width, channels))


def image_feeds(images: U8) -> Iterator[Feed]:
    """Cut images, uint8 (n, h, w, c), into batches for a graph's ``images``."""
    pixels = images.shape[1] * images.shape[2]
    step = max(1, min(IMAGES, PIXELS // pixels))
    for start in range(0, len(images), step):
        some = images[start : start + step]
        yield np.arange(start, start + len(some)), {"images": some}


def check_texts(texts: Any, *, what: str, encoder: str) -> list[str]:
    """Texts as a list; one string is one text.

    Args:
        texts: A sequence of strings, or one string; a string can be empty.
        what: The name of the texts in errors.
        encoder: The name of the encoder in errors.

    Raises:
        DataError: If one is not a string of Unicode text; the message says which.
    """
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | Mapping) or getattr(texts, "ndim", 1) != 1:
        raise DataError(f"The {what} are not a list of strings, and the encoder {encoder} takes text.")
    found = list(texts)
    for row, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(
                f"Row {row} of the {what} is {_shortly(text)}, not a string, and the encoder {encoder} takes text."
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"Row {row} of the {what} is no Unicode text: it contains half of a surrogate pair."
            ) from None
    return found


class Tokenizer:
    """The tokenizer of an encoder file, with its own special and padding tokens.

    Args:
        json: JSON of the package ``tokenizers``.
        max_tokens: The most tokens of a text, special ones included.
        special: False to add no special tokens.
        encoder: The name of the encoder in errors.

    Raises:
        AlulaError: If the package ``tokenizers`` is not installed.
        EncoderError: If it cannot read the JSON.
    """

    def __init__(self, json: str, max_tokens: int, *, special: bool = True, encoder: str) -> None:
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._special = special
        try:
            import tokenizers  # noqa: PLC0415  encoders of vectors and images do without
        except ImportError:
            raise AlulaError(
                "An encoder of text needs the package 'tokenizers'; install it with: pip install 'alula[text]'."
            ) from None
        with self._errors("cannot be read"):
            self._tokenizer = tokenizers.Tokenizer.from_str(json)
            padding = self._tokenizer.padding
            known = (self._tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
            self._pad = padding["pad_id"] if padding else next((id_ for id_ in known if id_ is not None), 0)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_tokens)
            added = self._tokenizer.num_special_tokens_to_add(is_pair=False) if special else 0
            if added > max_tokens:  # it would not truncate then
                raise ValueError(f"it adds {added} special tokens, and max_tokens is {max_tokens}")

    def feeds(self, texts: Sequence[str], width: int) -> Iterator[Feed]:
        """Cut texts into batches of similar length: ``input_ids`` and ``attention_mask``.

        Args:
            texts: The texts, prompts included.
            width: The number of floats that the graph has per token.

        Yields:
            The positions of a batch, and its inputs, int64 (n, t).

        Raises:
            EncoderError: If the tokenizer fails.
        """
        places: list[int] = []
        characters = 0
        for place, text in enumerate(texts):
            if places and (len(places) == PIECE_TEXTS or characters + len(text) > PIECE_CHARACTERS):
                yield from self._piece(texts, places, width)
                places, characters = [], 0
            places.append(place)
            characters += len(text)
        yield from self._piece(texts, places, width)

    def _piece(self, texts: Sequence[str], places: Sequence[int], width: int) -> Iterator[Feed]:
        with self._errors("failed"):
            piece = [texts[i] for i in places]
            encoded = self._tokenizer.encode_batch_fast(piece, add_special_tokens=self._special)
            tokens = [encoding.ids for encoding in encoded]
            longest = max(map(len, tokens), default=0)
            if longest > self._max_tokens:
                raise ValueError(f"it gives {longest} tokens, and max_tokens is {self._max_tokens}")
        order = np.argsort([len(ids) for ids in tokens], kind="stable")[::-1]  # the largest batch fails first, if any
        start = 0
        while start < len(order):
            longest = max(1, len(tokens[order[start]]))  # some graphs fail on a text without tokens
            batch = order[start : start + max(1, min(TEXTS, TOKENS // longest, FLOATS // (longest * width)))]
            input_ids = np.full((len(batch), longest), self._pad, np.int64)
            mask = np.zeros_like(input_ids)
            for row, place in enumerate(batch):
                ids = tokens[place]
                input_ids[row, : len(ids)] = ids
                mask[row, : len(ids)] = 1
            yield np.asarray(places)[batch], {"input_ids": input_ids, "attention_mask": mask}
            start += len(batch)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # bare Exceptions, and Rust's panics, which are no Exceptions
            detail = " ".join(str(error).split()).rstrip(".")
            raise EncoderError(f"Cannot use the encoder {self._encoder}: its tokenizer {what} ({detail}).") from None


def _shortly(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else type(value).__name__
