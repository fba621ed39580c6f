"""Labels of rows: one for each row, or several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from alula.errors import DataError

Labels = npt.NDArray[Any]  # int64 (n,): a class number for each row; or bool (n, C): the classes of each row

MAX_MEMBERSHIPS = 1 << 31  # rows times classes, a byte each


def read_labels(labels: Any, rows: int) -> tuple[tuple[str, ...], Labels]:
    """The classes' names, sorted, and each row's class number or classes.

    Args:
        labels: n class names or numbers; for rows of several classes n lists of names, or an array (n, C) of 0 and 1,
            whose classes are named by their numbers. A list may be empty.
        rows: Number of rows n.

    Raises:
        DataError: If they do not fit the rows, or teach nothing.
    """
    array = _as_array(labels)
    if array.ndim == 2:
        return _checked(tuple(map(str, range(array.shape[1]))), _members(array, rows))
    if array.shape != (rows,):
        raise DataError(
            f"There are {rows:,} rows, and the labels have shape {array.shape}; give one label for each row, in the "
            "same order, or an array of rows and classes of 0 and 1."
        )
    array = _as_names(array)
    if array.dtype == object:
        return _checked(*_of_lists(array))
    names, numbers = np.unique(array, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"All rows have the label {names[0]!s}; labels teach what differs, so two or more are needed.")
    if len(names) == rows:
        raise DataError("Every row has a label of its own, so no two rows are near each other; rows must share labels.")
    return tuple(map(str, names)), numbers.astype(np.int64)


def alike(labels: Tensor, others: Tensor) -> Tensor:
    """True where two rows share a label, bool (m, n).

    Args:
        labels: int64 (m,) or bool (m, C).
        others: int64 (n,) or bool (n, C).
    """
    if labels.ndim == 1:
        return labels[:, None] == others
    return labels.float() @ others.float().T > 0


def _as_array(labels: Any) -> npt.NDArray[Any]:
    if isinstance(labels, np.ndarray) or not any(isinstance(one, list | tuple | set | frozenset) for one in labels):
        return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)  # lists of one length would become an array of two dimensions
    array[:] = [tuple(one) if isinstance(one, list | set | frozenset) else one for one in labels]
    return array


def _as_names(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Names or whole numbers; objects if a row has a list."""
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"The label of row {int(np.argmin(np.isfinite(array)))} is missing or not a number.")
        if (array % 1).any():
            raise DataError("The labels are fractions; a label is a class number or name.")
        return array.astype(np.int64)
    if array.dtype.kind != "O":
        return array
    missing = [number for number, label in enumerate(array) if label is None or _is_nan(label)]
    if missing:
        raise DataError(f"Row {missing[0]} has no label; remove such rows or label them ({len(missing):,} in all).")
    if any(_several(label) for label in array):
        return array
    return np.array([str(label) for label in array])


def _is_nan(label: Any) -> bool:
    return isinstance(label, float) and label != label  # noqa: PLR0124


def _several(label: Any) -> bool:
    return isinstance(label, list | tuple | np.ndarray)


def _members(array: npt.NDArray[Any], rows: int) -> Labels:
    """An array of rows and classes, bool (n, C)."""
    if len(array) != rows or array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise DataError(
            f"There are {rows:,} rows, and the labels have shape {array.shape}; an array of rows and classes has a row "
            "for each of them, and 0 or 1 everywhere."
        )
    return array.astype(bool)


def _of_lists(array: npt.NDArray[Any]) -> tuple[tuple[str, ...], Labels]:
    """The names in the rows' lists, and which of them each row has."""
    lists = [_names_of(label) for label in array]
    names = sorted({name for some in lists for name in some})
    if len(lists) * len(names) > MAX_MEMBERSHIPS:
        raise DataError(
            f"{len(lists):,} rows have {len(names):,} different labels in their lists, which are too many to learn "
            "from; keep the labels that most rows have."
        )
    numbers = {name: number for number, name in enumerate(names)}
    members = np.zeros((len(lists), len(names)), bool)
    for row, some in enumerate(lists):
        members[row, [numbers[name] for name in some]] = True
    return tuple(names), members


def _names_of(label: Any) -> Sequence[str]:
    some: Iterable[Any] = label if _several(label) else [label]
    return [str(name) for name in some if name is not None]


def _checked(names: tuple[str, ...], members: Labels) -> tuple[tuple[str, ...], Labels]:
    counts = members.sum(0)
    if (counts == len(members)).any():
        name = names[int(counts.argmax())]
        raise DataError(f"All rows have the label {name}; labels teach what differs, so leave out what all rows share.")
    if not (counts > 1).any():
        raise DataError("No two rows share a label, so no two are near each other; rows must share labels.")
    return names, members
