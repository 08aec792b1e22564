"""What a training run reports at its end: scores, the loss, the step."""

from pathlib import Path

import numpy as np
import pytest
from runs import SMALL, pair_options, text_options, trained

from numtape.training import plots, report
from numtape.training.errors import DataError
from numtape.training.evaluate import bleu, exact_match
from numtape.training.loop import run_loop
from numtape.training.options import PRESETS, changed
from numtape.training.progress import Progress


def test_dates_are_scored(few_dates: None, capsys: pytest.CaptureFixture) -> None:
    options = changed(PRESETS["dates"], {**SMALL, "shapes": 1, "batch_tokens": 256})
    report.show_samples(trained(options, 1))
    shown = capsys.readouterr().out
    assert shown.count("->") == 6
    assert "Exact match on 8 held-out dates: 0.0%" in shown


def test_the_report_says_where_everything_is(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report.draw_or_text.__globals__["shutil"], "which", lambda name: None)
    monkeypatch.setattr(plots, "figure", None)
    trainer = trained(text_options(text), 0)
    with Progress(0, 8) as progress:
        run_loop(trainer, tmp_path, progress)
    report.report(trainer, progress, tmp_path, 1.0)
    shown = capsys.readouterr().out
    for words in ("steps/s", "passes", "bytes in the arena", "pip install matplotlib"):
        assert words in shown
    assert f"{tmp_path / 'step.dot'} (as text: for SVG install Graphviz)" in shown
    assert "def bind(" in (tmp_path / "step.py").read_text()


def test_the_loss_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "loss.png"
    assert plots.plot_losses([3.0, 2.0, 1.5], [(2, 2.1)], "Loss", path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_loss_in_a_line() -> None:
    assert plots.sparkline([8.0, 4.0, 2.0, 1.0]) == "8 █▆▃▁ 1"
    assert plots.sparkline([1.2345]) == "1.23 ▁ 1.23"
    assert len(plots.sparkline(list(range(1, 1000))).split()[1]) == plots.WIDTH
    assert np.allclose(plots.running_mean([1.0, 3.0, 5.0], 2), [1.0, 2.0, 4.0])


def test_scores() -> None:
    pytest.importorskip("sacrebleu")
    lines = ["a man sleeps in a green room", "two dogs run"]
    assert bleu(lines, lines).startswith("BLEU 100.00")
    assert exact_match(["a", "b"], ["a", "c"]) == 0.5
    with pytest.raises(DataError, match="1 lines to translate and 2 references"):
        bleu(lines[:1], lines)


def test_the_picture_of_a_step_is_the_largest_one_as_traced(
    pairs: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report.draw_or_text.__globals__["shutil"], "which", lambda name: None)
    monkeypatch.setattr(plots, "figure", None)
    trainer = trained(pair_options(pairs, shapes=2, layers=2), 0)
    with Progress(0, 8) as progress:
        run_loop(trainer, tmp_path, progress)
    report.report(trainer, progress, tmp_path, 1.0)
    largest = max(trainer.step.tapes, key=lambda tape: tape.memory.arena)
    shown = " and ".join(map(str, largest.arguments))
    assert f"in the arena of the largest tape, {shown}\n" in capsys.readouterr().out
    drawn = (tmp_path / "step.dot").read_text()
    assert "training_step, traced" in drawn
    assert drawn.count("layers.0–1  ×2") == 2
    assert (tmp_path / "step.py").read_text() == largest.source
