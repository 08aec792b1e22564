"""A storm: a function that is traced again and again. What varies, and how to have it vary less.

Each trace takes as long as hundreds of replays, so a program that makes one for every call runs,
and runs slowly, and does not say why.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from numtape.caching.signatures import Key, leaf_names
from numtape.tracer.structure import readable

TRACES = 16  # before which there is no storm
CALLS = 4  # calls for each trace, from which on there is none
FEW = 8  # tapes that are few enough


class RetraceWarning(UserWarning):
    """A compiled function is traced so often that its calls are slower than eager ones."""


def is_storm(traces: int, calls: int) -> bool:
    return traces >= TRACES and calls < CALLS * traces


def storm(keys: Sequence[Key], changes: Sequence[str], names: Sequence[str]) -> list[str]:
    """What varies among the calls with these keys, most of all first, and what to do about it.

    `changes` are the reasons of the same traces, for those that no argument is to blame for.
    """
    nestings = Counter(tuple(path for path, _ in key[0]) for key in keys)
    (paths, _), *_ = nestings.most_common(1)
    alike = [key for key in keys if tuple(path for path, _ in key[0]) == paths]
    found = sorted((*_lengths(alike, names), *_statics(alike, names)), reverse=True)
    if not found:
        (change, times), *_ = Counter(changes).most_common(1)
        found = [(times, f"{times} times the reason was: {change}")]
    return [text for _, text in found]


def _lengths(keys: Sequence[Key], names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """For each axis that varies, the number of its lengths, and words; axes that vary alike,
    such as those of tokens and targets, are told together."""
    ranks = Counter(tuple(len(leaf[1]) for leaf in key[3:]) for key in keys)
    (rank, _), *_ = ranks.most_common(1)
    alike = [key for key in keys if tuple(len(leaf[1]) for leaf in key[3:]) == rank]
    axes: dict[tuple[int, ...], list[str]] = {}
    for i, (name, count) in enumerate(zip(leaf_names(keys[0][0], names), rank, strict=True)):
        for axis in range(count):
            lengths = tuple(key[3 + i][1][axis] for key in alike)
            axes.setdefault(lengths, []).append(f"axis {axis} of argument {name}")
    for lengths, found in axes.items():
        if len(set(lengths)) > FEW:
            yield len(set(lengths)), f"{' and '.join(found)} {_padding(set(lengths))}"


def _padding(lengths: Collection[int]) -> str:
    unit = 2
    while len({-(-n // unit) for n in lengths}) > FEW:
        unit *= 2
    buckets = len({-(-n // unit) for n in lengths})
    return (
        f"had {len(lengths)} lengths from {min(lengths)} to {max(lengths)}: padded to multiples "
        f"of {unit}, with a mask for what was added, they would need {buckets} tapes"
    )


def _statics(keys: Sequence[Key], names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """For each static argument that varies, the number of its values, and words."""
    for place, (path, _) in enumerate(keys[0][0]):
        values = list(dict.fromkeys(key[0][place][1] for key in keys))
        if len(values) > FEW:
            shown = ", ".join(repr(v[1]) if isinstance(v, tuple) else str(v) for v in values[:3])
            yield (
                len(values),
                f"argument {readable(path, names)} had {len(values)} values ({shown}, ...), and "
                f"a tape is made for each{_way_out(values)}",
            )


def _way_out(values: Sequence[Any]) -> str:
    if all(isinstance(v, tuple) and isinstance(v[1], int) for v in values):
        return ": where it decides no shape, give it as a float or an array, np.asarray(value)"
    return ""
