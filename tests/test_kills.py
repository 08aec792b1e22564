"""A few of the kills of `make kill`: what is left loads, and ends with the same bits."""

from pathlib import Path

from kills import kill_runs


def test_a_run_that_is_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    counts = kill_runs(6, 0, tmp_path)
    assert counts["saving"] == counts["random"] == 3
