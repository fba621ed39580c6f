"""Milvus's filter expressions over Arrow columns, as far as every Milvus means the same by them.

What is understood: comparisons of a column with a literal, ranges (``1 < a <= 5``), ``in``, ``not in``, ``like`` with a
``%`` at the start, the end or both, ``and`` (``&&``), ``or`` (``||``), ``not (...)`` (``!(...)``) and parentheses.
Everything else is for Milvus itself, also what only some of its versions take, or take for something else: arithmetic,
keywords in capitals but ``LIKE`` (Milvus Lite 2.5 reads no further than to ``AND``), literals in front (``5 == a``),
other escapes than those of quotes and backslashes, ``_`` in ``like``, JSON, arrays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]
Predicate: TypeAlias = "Callable[[pa.RecordBatch], Mask]"

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    | (?P<number>[-+]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign><=|>=|==|!=|&&|\|\||[<>!()\[\],])
    )""",
    re.VERBOSE | re.ASCII,
)
_COMPARE = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
}
_WORDS = {"and": "and", "&&": "and", "or": "or", "||": "or", "not": "not", "!": "not", "in": "in"}
_WORDS |= {"like": "like", "LIKE": "like"}  # of the keywords in capitals the one that every Milvus takes
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_DEEPEST = 50  # parentheses inside each other
_LIKE = re.compile(r"(%?)([^%_\\]+)(%?)")
_LIKE_TESTS = {
    ("", ""): pc.equal,
    ("", "%"): pc.starts_with,
    ("%", ""): pc.ends_with,
    ("%", "%"): pc.match_substring,
}
_INT64 = 2**63


class FilterNotSupported(Exception):
    """The filter is for Milvus itself; the message is why, in words that continue "goes to Milvus:"."""


def parse_filter(text: str, schema: pa.Schema) -> Predicate:
    """A filter as a function of the columns, which gives a bool array (n,).

    Args:
        text: The filter expression.
        schema: The columns that are held: booleans, numbers of Milvus's types, and large_string.

    Raises:
        FilterNotSupported: If it names another column, or says something that is not understood here.
    """
    return _Parser(text, schema).parse()


class _Parser:
    """Recursive descent: or, and, not, predicate; ``not`` binds tighter than a comparison, so it needs parentheses."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text, self._schema = text, schema
        self._tokens = _tokens(text)
        self._at = self._depth = 0

    def parse(self) -> Predicate:
        found = self._either()
        if self._at < len(self._tokens):
            self._refuse()
        return found

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ("end", "")

    def _take(self, *signs: str) -> str | None:
        """The next token if it is one of these."""
        kind, token = self._peek()
        if kind in ("sign", "keyword") and token in signs:
            self._at += 1
            return token
        return None

    def _refuse(self) -> NoReturn:
        what = self._peek()[1]
        raise FilterNotSupported(f"only Milvus can evaluate it from {what!r} on" if what else "it ends too early")

    def _either(self) -> Predicate:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda columns: _reduced(np.logical_or, parts, columns)

    def _both(self) -> Predicate:
        parts = [self._single()]
        while self._take("and"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else lambda columns: _reduced(np.logical_and, parts, columns)

    def _single(self) -> Predicate:
        negated = self._take("not")
        if not self._take("("):
            return self._refuse() if negated else self._predicate()
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse()
        inner = self._either()
        self._depth -= 1
        if not self._take(")"):
            self._refuse()
        return (lambda columns: ~inner(columns)) if negated else inner

    def _predicate(self) -> Predicate:
        if self._peek()[0] != "name":
            return self._range()
        name = self._column()
        if sign := self._take(*_COMPARE):
            return self._comparison(name, sign, self._literal(name))
        if self._take("like"):
            return self._like(name)
        negated = self._take("not")
        if not self._take("in"):
            self._refuse()
        wanted = self._list(name)
        found: Predicate = lambda columns: _mask(pc.is_in(columns[name], value_set=wanted))  # noqa: E731
        return (lambda columns: ~found(columns)) if negated else found

    def _range(self) -> Predicate:
        """``1 < a <= 5``. The other way round, Milvus Lite 2.5 takes a range for something else."""
        low = self._peek()
        self._at += 1
        lower = self._take("<", "<=")
        if lower is None or self._peek()[0] != "name":
            self._refuse()
        name = self._column()
        upper = self._take("<", "<=")
        if upper is None:
            self._refuse()
        above = self._comparison(name, lower.replace("<", ">"), self._value(name, *low))
        below = self._comparison(name, upper, self._literal(name))
        return lambda columns: above(columns) & below(columns)

    def _comparison(self, name: str, sign: str, value: pa.Scalar) -> Predicate:
        if pa.types.is_boolean(value.type) and sign not in ("==", "!="):
            self._refuse()
        compare = _COMPARE[sign]
        return lambda columns: _mask(compare(columns[name], value))

    def _like(self, name: str) -> Predicate:
        kind, token = self._peek()
        if kind != "string" or not pa.types.is_large_string(self._type(name)):
            self._refuse()
        match = _LIKE.fullmatch(_unescaped(token))
        if match is None:
            self._refuse()
        self._at += 1
        before, part, behind = match.groups()
        test: Callable[..., Any] = _LIKE_TESTS[before, behind]
        return lambda columns: _mask(test(columns[name], part))

    def _list(self, name: str) -> pa.Array:
        """The values in brackets, those left out that the column's type cannot hold."""
        if not self._take("["):
            self._refuse()
        values, kind = [], self._type(name)
        while not self._take("]"):
            values.append(self._literal(name).as_py())
            if not self._take(",") and self._peek()[1] != "]":
                self._refuse()
        if pa.types.is_integer(kind):
            limits = np.iinfo(kind.to_pandas_dtype())
            values = [value for value in values if limits.min <= value <= limits.max]
        elif pa.types.is_floating(kind) and 0.0 in values:
            values += [0.0, -0.0]  # Arrow tells them apart
        return pa.array(values, kind)

    def _column(self) -> str:
        name = self._peek()[1]
        if name not in self._schema.names:
            raise FilterNotSupported(f"the column {name!r} is not held here (name it in columns=)")
        self._at += 1
        return name

    def _type(self, name: str) -> pa.DataType:
        return self._schema.field(name).type

    def _literal(self, name: str) -> pa.Scalar:
        """The next token as a value to compare a column with."""
        value = self._value(name, *self._peek())
        self._at += 1
        return value

    def _value(self, name: str, kind: str, token: str) -> pa.Scalar:
        """A token as a value of the type in which Milvus compares the column."""
        column = self._type(name)
        value: Any = None
        if kind == "string" and pa.types.is_large_string(column):
            value = _unescaped(token)
        elif kind == "boolean" and pa.types.is_boolean(column):
            value = _BOOLEANS[token]
        elif kind == "number" and pa.types.is_integer(column):
            value, column = _whole(token), pa.int64()
        elif kind == "number" and pa.types.is_floating(column):
            value = _real(token)
        if value is None:
            self._refuse()
        return pa.scalar(value, column)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise FilterNotSupported(f"only Milvus can evaluate it from {text[at:].strip()[:20]!r} on")
        kind, token = str(match.lastgroup), str(match[str(match.lastgroup)])
        if kind == "word" and token not in _WORDS and token.lower() in _WORDS:
            raise FilterNotSupported(f"not every Milvus understands the same by {token!r}")
        if kind != "string" and token in _WORDS:
            kind, token = "keyword", _WORDS[token]
        elif kind == "word":
            kind = "boolean" if token in _BOOLEANS else "name"
        found.append((kind, token))
        at = match.end()
    return found


def _unescaped(token: str) -> str:
    """What a literal stands for. Milvus Lite 2.5 leaves the escapes of control characters as they are written."""
    if re.search(r"\\[^\\\"']", token[1:-1].replace("\\\\", "")):
        raise FilterNotSupported("not every Milvus understands the same by the escape in it")
    return re.sub(r"\\(.)", r"\1", token[1:-1])


def _whole(token: str) -> int | None:
    """A decimal integer; Milvus takes a leading 0 for octal, and compares no integer with a fraction."""
    match = re.fullmatch(r"([-+]?)\s*(0|[1-9]\d*)", token)
    value = int(match[1] + match[2]) if match else _INT64
    return value if abs(value) < _INT64 else None


def _real(token: str) -> float | None:
    if _whole(token) is None and not re.search(r"[.eE]", token):
        return None
    value = float(re.sub(r"\s", "", token))
    return value if np.isfinite(value) else None


def _reduced(combine: np.ufunc, parts: list[Predicate], columns: pa.RecordBatch) -> Mask:
    mask = parts[0](columns)
    for part in parts[1:]:
        mask = combine(mask, part(columns))
    return mask


def _mask(found: pa.BooleanArray) -> Mask:
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)
