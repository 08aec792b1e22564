"""What the passes and the planner did, as a text table.

Reads their records; a tape shows the result as `tape.passes`.
"""

from collections.abc import Sequence
from itertools import pairwise

from numtape.ir.records import PassRecord
from numtape.ir.text import columns

HEADER = ("pass", "exact", "nodes", "", "bytes", "", "ms", "")


class PassReport(tuple[PassRecord, ...]):
    """What the passes did, in order; as text it is the table."""

    def __str__(self) -> str:
        return pass_table(self)


def pass_table(records: Sequence[PassRecord]) -> str:
    """One line a pass: whether exact, nodes and bytes before and after, time, and a note."""
    if not records:
        return "no passes"
    rows = [HEADER, *(_row(r) for r in records)]
    first, last = records[0], records[-1]
    # Results one by one and the block that they share are no change of one measure.
    one_measure = all(a.bytes_after == b.bytes_before for a, b in pairwise(records))
    rows.append(
        (
            "total",
            _yes(all(r.exact for r in records)),
            *_change(first.nodes_before, last.nodes_after),
            *(
                _change(first.bytes_before, last.bytes_after)
                if one_measure
                else (f"{last.bytes_after:,}", "")
            ),
            f"{sum(r.milliseconds for r in records):.2f}",
            "",
        )
    )
    lines = columns(rows, left=(0, 1, 7))
    rule = "─" * max(map(len, lines))
    return "\n".join((lines[0], rule, *lines[1:-1], rule, lines[-1]))


def _row(record: PassRecord) -> tuple[str, ...]:
    return (
        record.name,
        _yes(record.exact),
        *_change(record.nodes_before, record.nodes_after),
        *_change(record.bytes_before, record.bytes_after),
        f"{record.milliseconds:.2f}",
        record.note,
    )


def _change(before: int, after: int) -> tuple[str, str]:
    """`1,499 → 1,310` and `-12.6 %`; the change is left out where there is none."""
    percent = f"{100 * (after - before) / before:+.1f} %" if before and after != before else ""
    return f"{before:,} → {after:,}", percent


def _yes(exact: bool) -> str:
    return "yes" if exact else "no"
