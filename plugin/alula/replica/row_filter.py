"""Evaluate Milvus's filter expressions over Arrow columns.

Only syntax with one meaning in all versions of Milvus is evaluated here.

Understood: comparisons of a column with a literal, ranges (``1 < a <= 5``), ``in``, ``not in``, ``like`` with a ``%``
at the start, the end or both, ``and`` (``&&``), ``or`` (``||``), ``not (...)`` (``!(...)``) and parentheses. These are
expressions of Python but for a few spellings, so `ast` parses them. Everything else goes to Milvus itself, also syntax
that only some of its versions take, or take for something else: arithmetic, keywords in capitals but ``LIKE`` (Milvus
Lite 2.5 reads no further than to ``AND``), literals in front (``5 == a``), other escapes than those of quotes and
backslashes, ``_`` in ``like``, JSON, arrays.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]
Predicate: TypeAlias = "Callable[[pa.RecordBatch], Mask]"

_SPACE = re.compile(r"\s*", re.ASCII)
# Each alternative begins and ends in one way only, so that matching takes linear time.
_TOKEN = re.compile(
    r"""(?:
      (?P<string>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    | (?P<number>(?:[-+]\s*)?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<word>[A-Za-z_$]\w*)
    | (?P<sign><=|>=|==|!=|&&|\|\||[<>!()\[\],])
    )""",
    re.VERBOSE | re.ASCII,
)
# Spellings in Python; of the keywords in capitals the one that every Milvus takes. Python has no operator `like`.
_SPELLINGS = {"and": "and", "&&": "and", "or": "or", "||": "or", "not": "not", "!": "not", "in": "in"}
_SPELLINGS |= {"like": "@", "LIKE": "@"}
_SPELLINGS |= {"true": "True", "True": "True", "TRUE": "True", "false": "False", "False": "False", "FALSE": "False"}
_BEFORE_GROUP = ("", "(", "and", "or", "not")  # tokens before a parenthesis that opens
_AFTER_GROUP = (")", "and", "or")  # tokens behind one that closes
_MOST_NESTED = 50  # parentheses
_COMPARISONS: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE}
_LIKE = re.compile(r"(%?)([^%_\\]+)(%?)")
_LIKE_TESTS = {
    ("", ""): pc.equal,
    ("", "%"): pc.starts_with,
    ("%", ""): pc.ends_with,
    ("%", "%"): pc.match_substring,
}
_INT64 = 2**63


class FilterNotSupported(Exception):
    """The filter is for Milvus; the message is the reason, as after "goes to Milvus:"."""


def parse_filter(text: str, schema: pa.Schema) -> Predicate:
    """A filter as a function of the columns, which returns a bool array (n,).

    Args:
        text: The filter expression.
        schema: The columns of the replica: booleans, numbers of Milvus's types, and large_string.

    Raises:
        FilterNotSupported: If it names another column, or contains other syntax.
    """
    source = _in_python(text, schema.names)
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FilterNotSupported("only Milvus can evaluate an expression of this form") from None
    return _Compiler(source, schema).compile(tree.body)


def _in_python(text: str, columns: list[str]) -> str:
    """The filter as a Python expression that names columns by number, as ``_3``."""
    tokens: list[str] = []
    at, depth, before, text = 0, 0, "", text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, _SPACE.match(text, at).end())  # type: ignore[union-attr]
        if match is None:
            raise _unsupported(text[at:].strip()[:20])
        kind, token = str(match.lastgroup), str(match[str(match.lastgroup)])
        if kind == "word" and token not in _SPELLINGS and token.lower() in _SPELLINGS:
            raise FilterNotSupported(f"not every Milvus understands the same by {token!r}")
        if kind == "string":
            _check_escapes(token)
        elif token in _SPELLINGS:
            token = _SPELLINGS[token]
        elif kind == "word":
            token = _column(token, columns)
        depth += {"(": 1, ")": -1}.get(token, 0)
        # Milvus's `not` binds tighter than a comparison, and parentheses around values are for Milvus
        misplaced = token.startswith("(") and before not in _BEFORE_GROUP
        misplaced |= before == ")" and token not in _AFTER_GROUP
        misplaced |= before == "not" and token not in ("(", "in")
        if misplaced or depth > _MOST_NESTED or (kind == "string" and before[-1:] in ("'", '"')):
            raise _unsupported(token)
        tokens.append(token)
        before, at = token, match.end()
    return " ".join(tokens)


def _column(name: str, columns: list[str]) -> str:
    if name not in columns:
        raise FilterNotSupported(f"the column {name!r} is not held here (name it in columns=)")
    return f"_{columns.index(name)}"


def _check_escapes(token: str) -> None:
    """Milvus Lite 2.5 leaves the escapes of control characters as they are written."""
    if re.search(r"\\[^\\\"']", token[1:-1].replace("\\\\", "")):
        raise FilterNotSupported("not every Milvus understands the same by the escape in it")


def _unsupported(part: str) -> FilterNotSupported:
    return FilterNotSupported(f"only Milvus can evaluate it from {part!r} on" if part else "it ends too early")


class _Compiler:
    """Turns a tree of `ast` into a predicate.

    Args:
        source: The expression.
        schema: The columns.
    """

    def __init__(self, source: str, schema: pa.Schema) -> None:
        self._source, self._schema = source, schema

    def compile(self, tree: ast.expr) -> Predicate:
        """The predicate of an expression; raises `FilterNotSupported`."""
        match tree:
            case ast.BoolOp(op=op, values=values):
                parts = [self.compile(value) for value in values]
                combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return lambda columns: _reduced(combine, parts, columns)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.compile(operand)
                return lambda columns: ~inner(columns)
            case ast.BinOp(left=ast.Name() as column, op=ast.MatMult(), right=ast.Constant(value=str() as pattern)):
                return self._like(self._position(column), pattern)
            case ast.Compare(
                left=ast.Name() as column, ops=[ast.In() | ast.NotIn() as op], comparators=[ast.List() as wanted]
            ):
                return self._among(self._position(column), wanted, negated=isinstance(op, ast.NotIn))
            case ast.Compare(left=ast.Name() as column, ops=[op], comparators=[value]):
                return self._comparison(self._position(column), type(op), value)
            case ast.Compare(
                left=low,
                ops=[ast.Lt() | ast.LtE() as lower, ast.Lt() | ast.LtE() as upper],
                comparators=[ast.Name() as column, high],
            ):
                # the other way round, Milvus Lite 2.5 takes a range for something else
                position = self._position(column)
                above = self._comparison(position, _MIRRORED[type(lower)], low)
                below = self._comparison(position, type(upper), high)
                return lambda columns: above(columns) & below(columns)
            case _:
                raise self._unsupported(tree)

    def _comparison(self, column: int, op: type[ast.cmpop], tree: ast.expr) -> Predicate:
        value = self._value(column, tree)
        if op not in _COMPARISONS or (pa.types.is_boolean(value.type) and op not in (ast.Eq, ast.NotEq)):
            raise self._unsupported(tree)
        compare = _COMPARISONS[op]
        return lambda columns: _mask(compare(columns[column], value))

    def _like(self, column: int, pattern: str) -> Predicate:
        match = _LIKE.fullmatch(pattern)
        if match is None or not pa.types.is_large_string(self._schema.types[column]):
            raise _unsupported(pattern)
        before, part, behind = match.groups()
        test: Callable[..., Any] = _LIKE_TESTS[before, behind]
        return lambda columns: _mask(test(columns[column], part))

    def _among(self, column: int, tree: ast.List, *, negated: bool) -> Predicate:
        """``in`` a list, of which values that the column's type cannot hold are left out."""
        values = [self._value(column, value).as_py() for value in tree.elts]
        data_type = self._schema.types[column]
        if pa.types.is_integer(data_type):
            limits = np.iinfo(data_type.to_pandas_dtype())
            values = [value for value in values if limits.min <= value <= limits.max]
        elif pa.types.is_floating(data_type) and 0.0 in values:
            values += [0.0, -0.0]  # Arrow distinguishes them
        wanted = pa.array(values, data_type)
        return lambda columns: _mask(pc.is_in(columns[column], value_set=wanted)) != negated

    def _value(self, column: int, tree: ast.expr) -> pa.Scalar:
        """A literal as a value of the type in which Milvus compares the column."""
        data_type = self._schema.types[column]
        match tree:
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=ast.Constant(value=int() | float() as number)):
                value: Any = -number if isinstance(op, ast.USub) else number
            case ast.Constant(value=value):
                pass
            case _:
                raise self._unsupported(tree)
        match value:
            case bool():
                fits = pa.types.is_boolean(data_type)
            case int():
                # Milvus compares no integer with a fraction
                fits = abs(value) < _INT64 and (pa.types.is_integer(data_type) or pa.types.is_floating(data_type))
                data_type = pa.int64() if pa.types.is_integer(data_type) else data_type
            case float():
                fits = pa.types.is_floating(data_type) and bool(np.isfinite(value))
            case _:
                fits = isinstance(value, str) and pa.types.is_large_string(data_type)
        if not fits:
            raise self._unsupported(tree)
        return pa.scalar(float(value) if pa.types.is_floating(data_type) else value, data_type)

    def _position(self, column: ast.Name) -> int:
        return int(column.id[1:])

    def _unsupported(self, tree: ast.expr) -> FilterNotSupported:
        part = ast.get_source_segment(self._source, tree) or ""
        return _unsupported(
            re.sub(r"\b_(\d+)\b", lambda match: self._schema.names[int(match[1])], part).replace(" @ ", " like ")
        )


def _reduced(combine: np.ufunc, parts: list[Predicate], columns: pa.RecordBatch) -> Mask:
    mask = parts[0](columns)
    for part in parts[1:]:
        mask = combine(mask, part(columns))
    return mask


def _mask(found: pa.BooleanArray) -> Mask:
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)
