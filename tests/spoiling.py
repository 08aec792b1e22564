"""What is done to a file that wants to do harm: bits, lengths, values, nesting."""

import copy
import json
import random
from typing import Any

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 255, 2**31, 2**63, 10**18, 10**400, -(10**9)),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "x", "../../x", "/etc/passwd", "/dev/zero", "a\0b", "\ud800", "x" * 10_000),
    *([], {}, [[]], [10**9] * 3, [0, 2**62], [1] * 100, ["a", "b"], {"a": {"a": 1}}),
]
BITS = [
    *(b"[" * 50_000, b'{"a":' * 50_000, b"9" * 5_000, b"-1", b"1e999", b"NaN", b"-Infinity"),
    *(b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\0", b'"', b"}", b"..", b"../../x", b"/etc/passwd"),
    *(
        b'"dtype":"F64"',
        b'"shape":[4611686018427387904,4]',
        b'"a":1,"a":2,',
        b"\r\n",
        b"\xef\xbb\xbf",
    ),
]
Random = random.Random


def spoil(data: bytes, rng: Random) -> bytes:
    """Some bytes, otherwise: one to three of the changes below."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(CHANGES)(bytearray(data), rng)
    return data


def _flip(data: bytearray, rng: Random) -> bytes:
    for _ in range(rng.choice((1, 1, 4, 64)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut(data: bytearray, rng: Random) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)])


def _insert(data: bytearray, rng: Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice((rng.choice(BITS), rng.randbytes(rng.randrange(1, 64))))
    return bytes(data)


def _overwrite(data: bytearray, rng: Random) -> bytes:
    place, part = rng.randrange(len(data) + 1), rng.choice(BITS)
    data[place : place + len(part)] = part
    return bytes(data)


def _move(data: bytearray, rng: Random) -> bytes:
    start, end, place = (rng.randrange(len(data) + 1) for _ in range(3))
    data[place:place] = data[start : min(end, start + 4096)]
    return bytes(data)


def _length(data: bytearray, rng: Random) -> bytes:
    size = rng.choice((0, 1, len(data), len(data) - 8, 2**24, 2**32, 2**63, 2**64 - 1))
    data[:8] = (size % 2**64).to_bytes(8, "little")
    return bytes(data)


def _number(data: bytearray, rng: Random) -> bytes:
    """Another number in the text, as where two lengths or offsets are swapped."""
    places = [i for i, byte in enumerate(data[:8192]) if 48 <= byte < 58]
    if places:
        place = rng.choice(places)
        data[place : place + 1] = str(rng.choice((0, 1, 4, 8, 10**6, 10**18, 2**64))).encode()
    return bytes(data)


CHANGES = (_flip, _cut, _insert, _overwrite, _move, _length, _number)


def spoil_values(value: Any, rng: Random) -> Any:
    """A JSON value with one to three of its parts replaced, removed, added or moved."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder: Any = value
        while isinstance(holder, dict | list) and holder:
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.2:
                _change(holder, key, rng)
                break
            holder = holder[key]
    return value


def _change(holder: Any, key: Any, rng: Random) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "../../x", "__class__", "a" * 5_000))] = holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
