"""What the passes did, as a text table.

Reads the records of `numtape.passes`; a tape shows the result as `tape.passes`.
"""

from collections.abc import Sequence
from typing import Protocol

HEADER = ("pass", "exact", "nodes", "", "bytes", "", "ms")


class Record(Protocol):
    """What a table needs to know of one pass."""

    @property
    def name(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def nodes_before(self) -> int: ...
    @property
    def nodes_after(self) -> int: ...
    @property
    def bytes_before(self) -> int: ...
    @property
    def bytes_after(self) -> int: ...
    @property
    def milliseconds(self) -> float: ...


class PassReport(tuple[Record, ...]):
    """What the passes did, in order; as text it is the table."""

    def __str__(self) -> str:
        return pass_table(self)


def pass_table(records: Sequence[Record]) -> str:
    """One line a pass: whether exact, nodes and bytes before and after, time; then the total."""
    if not records:
        return "no passes"
    rows = [HEADER, *(_row(r) for r in records)]
    first, last = records[0], records[-1]
    rows.append(
        (
            "total",
            _yes(all(r.exact for r in records)),
            *_change(first.nodes_before, last.nodes_after),
            *_change(first.bytes_before, last.bytes_after),
            f"{sum(r.milliseconds for r in records):.2f}",
        )
    )
    lines = _aligned(rows)
    rule = "─" * max(map(len, lines))
    return "\n".join((lines[0], rule, *lines[1:-1], rule, lines[-1]))


def _row(record: Record) -> tuple[str, ...]:
    return (
        record.name,
        _yes(record.exact),
        *_change(record.nodes_before, record.nodes_after),
        *_change(record.bytes_before, record.bytes_after),
        f"{record.milliseconds:.2f}",
    )


def _change(before: int, after: int) -> tuple[str, str]:
    """`1,499 → 1,310` and `-12.6 %`; the change is left out where there is none."""
    percent = f"{100 * (after - before) / before:+.1f} %" if before and after != before else ""
    return f"{before:,} → {after:,}", percent


def _yes(exact: bool) -> str:
    return "yes" if exact else "no"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines: the first two columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
