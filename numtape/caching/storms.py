"""A storm: a function that is traced again and again. What varies, and how to have it vary less.

Each trace takes as long as hundreds of replays, so a program that makes one for every call runs,
and runs slowly, and does not say why.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from numtape.caching.signatures import Key, leaf_names
from numtape.tracer.structure import readable

TRACES = 32  # the latest, which are looked at; before so many there is no storm
SETTLED = 64  # traces, after which a program has met its shapes
UNBROKEN = 36  # calls for the latest traces, up to which they are a storm before that
FREQUENT = 128  # and after it
FEW = 8  # tapes that are few enough


class RetraceWarning(UserWarning):
    """A compiled function is traced so often that its calls are slower than eager ones."""


class Miss(NamedTuple):
    """Why a trace was made, what it took, and how many tapes had to go for its own."""

    trace: int
    reason: str
    milliseconds: float
    dropped: int

    def __str__(self) -> str:
        note = f", and {self.dropped} dropped" if self.dropped else ""
        return f"trace {self.trace}: {self.reason} ({self.milliseconds:.0f} ms){note}"


class Made(NamedTuple):
    """A trace that a call made: the number of the call, and whether its arguments had a tape,
    so that a setting is the reason."""

    call: int
    key: Key
    miss: Miss
    setting: bool


def is_storm(made: Sequence[Made]) -> bool:
    """Whether calls rarely find a tape.

    Shapes that settle are traced often at first, then less and less: until there were more traces
    than there are shapes as a rule, only a run that hardly any call breaks is a storm.
    """
    if len(made) < TRACES:
        return False
    return calls_of(made) <= (FREQUENT if made[-1].miss.trace > SETTLED else UNBROKEN)


def calls_of(made: Sequence[Made]) -> int:
    """The calls from the first of these traces to the last."""
    return made[-1].call - made[0].call + 1


def storm(made: Sequence[Made], names: Sequence[str]) -> list[str]:
    """What varies among the calls that were traced, most of all first, and what to do about it."""
    if crowded := _crowded(made):
        return crowded
    keys = [m.key for m in made]
    alike = _largest_group(keys, lambda key: _nesting(key[0]))
    found = [*_lengths(alike, names), *_statics(alike, names)] or [
        *_nestings(keys, names),
        *_shapes(alike, names),
    ]
    return [text for _, text in sorted(found, reverse=True)] or _reason(made)


def _crowded(made: Sequence[Made]) -> list[str]:
    """Where few kinds of calls are traced again and again, because their tapes are dropped."""
    kinds, settings = len({m.key for m in made}), sum(m.setting for m in made)
    if not any(m.miss.dropped for m in made) or 2 * max(kinds, settings) > len(made):
        return []
    return [
        f"these calls are of {kinds} kinds, and their tapes were dropped for one another: raise "
        "max_tapes (or max_bytes)"
    ]


def _largest_group(keys: Sequence[Key], kind: Callable[[Key], Any]) -> list[Key]:
    """The keys of the kind that most of them are of."""
    kinds = list(map(kind, keys))
    (most, _), *_ = Counter(kinds).most_common(1)
    return [key for key, k in zip(keys, kinds, strict=True) if k == most]


def _nesting(entries: Iterable[tuple[str, Any]]) -> tuple[tuple[str, bool], ...]:
    """Where there are leaves and where there is something static, whatever it is."""
    return tuple((path, entry is None) for path, entry in entries)


def _lengths(keys: Sequence[Key], names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """For each axis that varies, the number of its lengths, and words; axes that vary alike,
    such as those of tokens and targets, are told together."""
    alike = _largest_group(keys, lambda key: tuple(len(leaf[1]) for leaf in key[3:]))
    axes: dict[tuple[int, ...], list[str]] = {}
    for i, name in enumerate(leaf_names(keys[0][0], names)):
        for axis, lengths in enumerate(zip(*(key[3 + i][1] for key in alike), strict=True)):
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


def _nestings(keys: Sequence[Key], names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """For each argument that is nested in many ways, their number, and words."""
    ways: dict[str, set] = {}
    for key in keys:
        arguments: dict[str, list[tuple[str, Any]]] = {}
        for path, entry in key[0]:
            if path.count("]") > 1:  # shorter ones are all that is given
                name = readable(path, names).partition("[")[0]
                arguments.setdefault(name, []).append((path, entry))
        for name, entries in arguments.items():
            ways.setdefault(name, set()).add(_nesting(entries))
    for name, found in ways.items():
        if len(found) > FEW:
            yield (
                len(found),
                f"argument {name} had {len(found)} nestings, and a tape is made for each",
            )


def _shapes(keys: Sequence[Key], names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """For each argument with many shapes, although no axis of it has many lengths."""
    for i, name in enumerate(leaf_names(keys[0][0], names)):
        shapes = {key[3 + i][1] for key in keys}
        if len(shapes) > FEW:
            ranks = sorted(set(map(len, shapes)))
            of = f"ranks {ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"rank {ranks[0]}"
            yield len(shapes), f"argument {name} had {len(shapes)} shapes of {of}"


def _reason(made: Sequence[Made]) -> list[str]:
    """What was said of most traces, where no argument is to blame."""
    reasons = [m.miss.reason for m in made]
    (reason, times), *_ = Counter(reasons).most_common(1)
    if times == 1:
        return [f"the latest reason was: {reasons[-1]}"]
    found = [f"{times} times the reason was: {reason}"]
    if any(m.setting and m.miss.dropped for m in made):
        found.append("where settings come again, raise max_tapes (or max_bytes)")
    return found
