"""Small inputs of training runs, how Hypothesis runs, and who hears interrupts."""

import signal
from pathlib import Path

import pytest
from checkpoints import META, arrays_of
from hypothesis import settings

from numtape.training import checkpoint, tasks

PAIRS = [("ab" * (1 + i % 3) + "c", "xy" * (1 + i % 3)) for i in range(24)]

# How long an example takes says more about what else the machine does.
settings.register_profile("numtape", deadline=None)
settings.load_profile("numtape")

# What runs in the background of a shell is told to ignore interrupts, and so would those processes
# be that the tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def few_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TRAINING_DATES", 60)
    monkeypatch.setattr(tasks, "HELD_OUT_DATES", 8)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 40)
    return str(path)


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[str, str]:
    for place, name in enumerate(("source", "target")):
        (tmp_path / name).write_text("".join(f"{pair[place]}\n" for pair in PAIRS))
    return str(tmp_path / "source"), str(tmp_path / "target")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "run", arrays_of(7), META)
    return tmp_path / "run"
