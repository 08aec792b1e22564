"""What files say, read as if a stranger had written them: JSON, and the arrays of safetensors.

Everything is checked before anything is made of it, and what is made is no larger than the file:
the arrays lie in the one buffer that the file was read into.
"""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

HEADER_LIMIT = 16 * 2**20
MOST_DIMENSIONS, LONGEST_TEXT, LONGEST_MESSAGE = 32, 4096, 1000
DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"U{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    **{f"I{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
}

Arrays = dict[str, np.ndarray]


def parse(raw: bytes | bytearray) -> Any:
    """The value of a JSON text in UTF-8, in which no name of an object is there twice.

    Raises ValueError for anything else.
    """
    try:
        return json.loads(raw.decode(), object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:40]!r} is there twice")
    return found


def unpack(data: bytearray) -> Arrays:
    """The arrays of a safetensors file, which lie writable in `data`.

    Raises ValueError where it is none, or its parts overlap, leave holes or have no NumPy dtype.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, HEADER_LIMIT):
        raise ValueError(f"its header would have {size} of its {len(data)} bytes")
    # Before megabytes of numbers are taken for text.
    if data[8:9] != b"{" or data[7 + size : 8 + size] not in (b"}", b" "):
        raise ValueError(f"its header of {size} bytes is no object")
    header = parse(data[8 : 8 + size])
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    entries = {name: _Entry(name, e) for name, e in header.items() if name != "__metadata__"}
    found = sorted(entries.values(), key=lambda entry: entry.span)
    place = 0
    for entry in found:
        if entry.span[0] != place:
            raise ValueError(f"{entry.name} begins at byte {entry.span[0]} and not at {place}")
        place = entry.span[1]
    if 8 + size + place != len(data):
        raise ValueError(f"its arrays end at byte {8 + size + place} of {len(data)}")
    return {entry.name: entry.array(data, 8 + size) for entry in found}


class _Entry:
    """What a header says of one array, after a check that it can be so."""

    def __init__(self, name: str, entry: Any) -> None:
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        kind, shape, span = (fields.get(n, "") for n in ("dtype", "shape", "data_offsets"))
        if not isinstance(kind, str) or kind not in DTYPES:
            raise ValueError(
                f"{name} is of dtype {str(kind)[:40]}, not one of {', '.join(DTYPES)}"
            )
        if not _sizes(shape, MOST_DIMENSIONS) or not _sizes(span, 2) or len(span) < 2:
            raise ValueError(f"{name} has a shape or data_offsets that are no sizes")
        self.name, self.dtype, self.shape, self.span = name, DTYPES[kind], tuple(shape), span
        wanted = math.prod(shape) * self.dtype.itemsize
        if wanted != span[1] - span[0]:
            raise ValueError(
                f"{name} of shape {self.shape} takes {wanted} bytes and has {span[1] - span[0]}"
            )

    def array(self, data: bytearray, start: int) -> np.ndarray:
        found = np.ndarray(self.shape, self.dtype, data, start + self.span[0])
        if self.dtype == bool and found.view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{self.name} has bytes that are no bools")
        return np.require(found, None, ["A"])


def _sizes(values: Any, most: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(v) is int and 0 <= v < 2**63 for v in values)
    )


def short(error: Exception) -> str:
    """What an error says, without the length that a file can give it."""
    text = str(error)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} ..."


def require_types(kind: type, values: Mapping[str, Any]) -> None:
    """ValueError that names the first value which is not of the type that its field has."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            raise ValueError(f"{name} is {repr(value)[:40]}, which is no {hints[name]}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: a plain one, a union, or a tuple of them.

    Numbers must be those that a machine has: no NaN, no infinity, no integer beyond 64 bits. Text
    is no longer than a path can be.
    """
    kinds = get_args(hint)
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        each = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        return len(value) == len(each) and all(map(fits, value, each))
    if kinds:
        return any(fits(value, kind) for kind in kinds)
    if type(value) is str and len(value) > LONGEST_TEXT:
        return False
    if type(value) is int and not -(2**63) <= value < 2**64:
        return False
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is hint
