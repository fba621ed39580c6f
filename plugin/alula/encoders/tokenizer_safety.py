"""Refuse tokenizers that could stop or fill the process that runs them.

A chain of replacements can double a text with each link, and a regular expression can try all ways to cut a text. So
the parts of a tokenizer are those of a list, together they make a text only so much longer, and a regular expression
is one that real models use or one that reads a text once.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from alula.errors import EncoderError

_PARTS = {
    "normalizer": """
        BertNormalizer ByteLevel Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Replace Sequence Strip StripAccents
    """,
    "pre_tokenizer": """
        BertPreTokenizer ByteLevel CharDelimiterSplit Digits Metaspace Punctuation Sequence Split UnicodeScripts
        Whitespace WhitespaceSplit
    """,
    "post_processor": "BertProcessing ByteLevel RobertaProcessing Sequence TemplateProcessing",
    "decoder": "BPEDecoder ByteFallback ByteLevel CTC Fuse Metaspace Replace Sequence Strip WordPiece",
    "model": "BPE Unigram WordLevel WordPiece",
}
PARTS = {section: frozenset(names.split()) for section, names in _PARTS.items()}
MAX_PARTS = 32  # of a chain
MAX_GROWTH = 2048  # times that a chain may lengthen a text; the compatibility forms of Unicode need 18
MAX_CONTENT = 64  # characters that stand for a replaced one
MAX_WORD = 1024  # characters of a word of the vocabulary, or of a word that WordPiece cuts
MAX_SPECIAL_IDS = 16  # of one special token
GROWTH = {"NFKC": 18, "NFKD": 18, "ByteLevel": 4, "BertNormalizer": 3}

# How GPT-2, CLIP, Llama 3, Qwen and o200k cut a text: each takes what it has read, so the time is linear.
_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_PUNCTUATION = r"| ?[^\s\p{L}\p{N}]+"
_LETTERS = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
KNOWN = frozenset(
    (
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+{_PUNCTUATION}|\s+(?!\S)|\s+",
        rf"<\|startoftext\|>|<\|endoftext\|>|{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
        rf"(?i:{_CONTRACTIONS})|{_LETTERS}\p{{L}}+|\p{{N}}{{1,3}}{_PUNCTUATION}[\r\n]*{_SPACES}",
        rf"(?i:{_CONTRACTIONS})|{_LETTERS}\p{{L}}+|\p{{N}}{_PUNCTUATION}[\r\n]*{_SPACES}",
        rf"(?:{_CONTRACTIONS}|'S|'T|'RE|'VE|'M|'LL|'D)|{_LETTERS}\p{{L}}+|\p{{N}}{_PUNCTUATION}[\r\n]*{_SPACES}",
        rf"{_LETTERS}{_UPPER}*{_LOWER}+(?i:{_CONTRACTIONS})?|{_LETTERS}{_UPPER}+{_LOWER}*(?i:{_CONTRACTIONS})?"
        rf"|\p{{N}}{{1,3}}{_PUNCTUATION}[\r\n/]*{_SPACES}",
    )
)
# One character: itself, a class, or a property.
_PROPERTY = r"\\[pP]\{\^?\w{1,32}\}"
_CHARACTER = (
    rf"(?:{_PROPERTY}|\\[^0-9pPkgGKRXAzZbBQE]|\[\^?\]?(?:{_PROPERTY}|\\[^0-9pP]|[^\]\[\\&])+\]|[^\\\[\](){{}}|*+?^$])"
)
_COUNT = r"(?:\?|\{\d(?:,\d)?\})?"
_ALTERNATIVE = rf"\^?(?:{_CHARACTER}{_COUNT}){{0,32}}{_CHARACTER}(?:{_COUNT}|[*+]|\{{\d,\}})\$?"
_QUICK = re.compile(rf"{_ALTERNATIVE}(?:\|{_ALTERNATIVE}){{0,63}}")


def check_tokenizer(text: str) -> None:
    """Check the JSON of a tokenizer.

    Raises:
        EncoderError: If it cannot be read or is not allowed; the message does not name the file.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"its tokenizer cannot be read ({error})") from None
    if not isinstance(data, dict):
        raise EncoderError("its tokenizer cannot be read (it is not an object)")
    for section, allowed in PARTS.items():
        for number, part in enumerate(_parts(data.get(section))):
            if number == MAX_PARTS:
                raise EncoderError(f"its tokenizer has more than {MAX_PARTS} parts of the kind {section}")
            kind = part.get("type")
            if kind not in allowed and not (kind is None and section == "model"):  # as older files have it
                raise EncoderError(f"its tokenizer has a {section} {kind!r}, which is not allowed")
            _check_part(part)
    growth = 1.0
    for part in (*_parts(data.get("normalizer")), *_parts(data.get("pre_tokenizer"))):
        growth *= _growth(part)
    if growth > MAX_GROWTH:
        raise EncoderError(f"its tokenizer can make a text {growth:.3g} times as long, more than {MAX_GROWTH}")
    _check_words(data)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # another reader may take the other one
        raise ValueError("a key is there twice")
    return found


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """A part, or the parts of a sequence."""
    todo = [part]
    while todo:
        one = todo.pop(0)
        if not isinstance(one, dict):
            continue
        inner = [value for value in one.values() if isinstance(value, list)] if one.get("type") == "Sequence" else []
        todo[:0] = [each for some in inner for each in some]
        yield one


def _check_part(part: dict[str, Any]) -> None:
    pattern = part.get("pattern")
    expression = pattern.get("Regex") if isinstance(pattern, dict) else None
    if expression is not None and not is_quick(expression):
        raise EncoderError(
            f"its tokenizer has the regular expression {str(expression)[:80]!r}, which could take very long; allowed "
            "are those of well-known models, and those whose only unbounded repetition ends an alternative"
        )
    if pattern in ({"String": ""}, ""):
        raise EncoderError("its tokenizer replaces an empty text")
    if len(str(part.get("content", ""))) > MAX_CONTENT or len(str(part.get("prepend", ""))) > MAX_CONTENT:
        raise EncoderError(f"its tokenizer inserts a text of more than {MAX_CONTENT} characters")
    template = part.get("single")
    if isinstance(template, list) and sum(isinstance(one, dict) and "Sequence" in one for one in template) > 1:
        raise EncoderError("its tokenizer repeats the text")
    tokens = part.get("special_tokens")
    for token in tokens.values() if isinstance(tokens, dict) else ():
        if isinstance(token, dict) and len(token.get("ids", ())) > MAX_SPECIAL_IDS:
            raise EncoderError(f"its tokenizer has a special token of more than {MAX_SPECIAL_IDS} ids")


def is_quick(expression: Any) -> bool:
    """True for a regular expression that reads a text in linear time."""
    if not isinstance(expression, str) or len(expression) > 4096:
        return False
    return expression in KNOWN or _QUICK.fullmatch(expression) is not None


def _growth(part: dict[str, Any]) -> float:
    """The most characters that a part makes of one."""
    kind = part.get("type")
    if kind == "Replace":
        content, pattern = len(str(part.get("content", ""))), part.get("pattern")
        if isinstance(pattern, dict) and "String" in pattern:
            return max(1.0, content / max(1, len(str(pattern["String"]))))
        return 1.0 + content  # an expression may match between two characters
    if kind == "Precompiled":
        return _longest_replacement(str(part.get("precompiled_charsmap") or ""))
    return GROWTH.get(str(kind), 1)


def _longest_replacement(charsmap: str) -> int:
    """The longest text in a map of characters: a trie, then texts that end with 0."""
    try:
        data = base64.b64decode(charsmap, validate=True)
    except (binascii.Error, ValueError):
        raise EncoderError("its tokenizer cannot be read (its map of characters is not base64)") from None
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    longest = max((len(text.decode(errors="replace")) for text in texts.split(b"\0")), default=0)
    if longest > MAX_CONTENT:
        raise EncoderError(f"its tokenizer inserts a text of more than {MAX_CONTENT} characters")
    return max(1, longest)


def _check_words(data: dict[str, Any]) -> None:
    model = data.get("model")
    vocabulary = model.get("vocab", ()) if isinstance(model, dict) else ()
    if isinstance(vocabulary, list):  # pairs of a word and its score
        vocabulary = [pair[0] for pair in vocabulary if isinstance(pair, list) and pair]
    added = data.get("added_tokens") or ()
    words = [*vocabulary, *(token.get("content", "") for token in added if isinstance(token, dict))]
    if max((len(str(word)) for word in words), default=0) > MAX_WORD:
        raise EncoderError(f"its tokenizer has a word of more than {MAX_WORD} characters")
    longest = model.get("max_input_chars_per_word", 0) if isinstance(model, dict) else 0
    if isinstance(longest, int | float) and longest > MAX_WORD:
        raise EncoderError(f"its tokenizer cuts words of up to {longest} characters, more than {MAX_WORD}")
