"""Training: presets, steps that resume bit for bit, averages, the loop, and what it reports."""

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import DATA, SMALL, pair_options, silent, text_options, trained

from numtape.training import checkpoint, folder, loop
from numtape.training.errors import CheckpointError, DataError, TrainingError
from numtape.training.evaluate import translate, write_on
from numtape.training.folder import load_model, new_folder, resume_run, save_run
from numtape.training.loop import Stop, run_loop
from numtape.training.options import PRESETS, Options, changed
from numtape.training.progress import Progress
from numtape.training.tasks import build_task
from numtape.training.trainer import Trainer, make_schedule


def assert_same_state(one: Trainer, other: Trainer) -> None:
    left, right = one.state(), other.state()
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert np.array_equal(array, right[name]), name


# Options


def test_options_come_back_from_their_dictionary() -> None:
    for preset in PRESETS.values():
        stored = {k: list(v) if isinstance(v, tuple) else v for k, v in preset.to_dict().items()}
        assert Options.from_dict(stored) == preset


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"lr": -1.0}, {"dropout": 1.0}, {"average": 2.0}, {"warmup": 0}]
)
def test_options_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=f"--{next(iter(settings))}"):
        replace(PRESETS["dates"], **settings)


def test_options_that_a_task_has_no_use_for_are_refused() -> None:
    with pytest.raises(ValueError, match="--context does not apply to the task 'dates'"):
        changed(PRESETS["dates"], {"context": 32})


def test_schedules_rise_to_the_given_rate() -> None:
    options = replace(PRESETS["pairs"], lr=3e-3, warmup=50, steps=200, min_lr=1e-4)
    for name in ("paper", "cosine"):
        schedule = make_schedule(replace(options, schedule=name))
        assert schedule(50) == pytest.approx(3e-3)
        assert schedule(25) == pytest.approx(1.5e-3)
        assert schedule(100) < 3e-3
    assert make_schedule(replace(options, schedule="cosine"))(200) == pytest.approx(1e-4)
    assert make_schedule(replace(options, schedule="constant"))(1) == 3e-3


# Tasks


def test_a_text_is_learnt(text: str) -> None:
    trainer = trained(text_options(text, steps=150, warmup=5, lr=2e-2, batch=8), 150)
    assert np.mean(trainer.losses[-5:]) < 0.5 * trainer.losses[0]
    assert len(trainer.step.tapes) == 1
    written = write_on(trainer.task.model, trainer.task.tokenizers[0], "to be", 12)
    assert written.startswith("to be") and len(written) == 17


def test_pairs_are_learnt_and_held_out(pairs: tuple[str, str]) -> None:
    options = pair_options(pairs, steps=100, warmup=10, lr=2e-2, dropout=0.1, average=0.2)
    trainer = trained(options, 100)
    assert trainer.task.held_out == (["abababc"], ["xyxyxy"])
    assert trainer.validate() == trainer.validation[-1][1]
    found = translate(trainer.task.model, trainer.task.tokenizers, ["ababc", "", "abc"])
    assert found == ["xyxy", "", "xy"]
    assert translate(trainer.task.model, trainer.task.tokenizers, ["ababc"], beam=2) == ["xyxy"]


def test_long_sources_are_read_as_far_as_the_model_can(pairs: tuple[str, str]) -> None:
    task = build_task(pair_options(pairs), silent)
    assert len(translate(task.model, task.tokenizers, ["ab" * 50])) == 1


@pytest.mark.parametrize("tied, count", [("all", 1), ("none", 2)])
def test_byte_pairs_are_shared_where_embeddings_are(
    pairs: tuple[str, str], tied: str, count: int
) -> None:
    pytest.importorskip("tokenizers")
    task = build_task(pair_options(pairs, vocab=262, tie_embeddings=tied), silent)
    assert len(task.tokenizers) == count
    assert task.model.config.src_vocab == task.tokenizers[0].vocab_size


def test_batches_of_captions_have_few_shapes() -> None:
    pytest.importorskip("tokenizers")
    if not (DATA / "multi30k").exists():
        pytest.skip("the shared data folder has no multi30k")
    files = tuple(str(DATA / "multi30k" / f"val.{side}.gz") for side in ("en", "de"))
    options = changed(PRESETS["pairs"], {**SMALL, "files": files, "vocab": 500, "shapes": 3})
    task = build_task(options, silent)
    assert len({task.batch(step)[0].shape for step in range(60)}) <= 3
    assert len(task.held_out[0]) == 10


def test_one_pair_cannot_be_held_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    with pytest.raises(DataError, match="give more pairs"):
        build_task(pair_options((str(tmp_path / "a"), str(tmp_path / "a"))), silent)


def test_double_precision_and_mixtures_train(text: str) -> None:
    trainer = trained(text_options(text, dtype="float64", experts=2, clip=0.0), 2)
    assert all(p.dtype == np.float64 for p in trainer.task.model.parameters())
    assert np.isfinite(trainer.losses).all()


# Going on


def test_a_resumed_run_is_the_same_run(text: str, tmp_path: Path) -> None:
    options = text_options(text, dropout=0.2, average=0.5, steps=24, warmup=4)
    whole = trained(options, 24)
    whole.validate()

    part = trained(options, 13)
    save_run(tmp_path / "run", part)
    resumed = resume_run(tmp_path / "run", {}, silent)
    assert (resumed.steps, resumed.losses) == (13, part.losses)
    for _ in range(11):
        resumed.advance()
    resumed.validate()

    assert whole.average.count == 1
    assert_same_state(whole, resumed)


def test_a_resumed_run_of_pairs_is_the_same_run(pairs: tuple[str, str], tmp_path: Path) -> None:
    options = pair_options(pairs, shapes=2, dropout=0.1, label_smoothing=0.1)
    whole = trained(options, 6)
    save_run(tmp_path / "run", trained(options, 2))
    resumed = resume_run(tmp_path / "run", {}, silent)
    for _ in range(4):
        resumed.advance()
    assert_same_state(whole, resumed)


def test_what_would_change_the_model_is_refused(text: str, tmp_path: Path) -> None:
    save_run(tmp_path, trained(text_options(text), 1))
    with pytest.raises(ValueError, match="--d-model 16 would change the model"):
        resume_run(tmp_path, {"d_model": 16}, silent)
    with pytest.raises(ValueError, match="--task"):
        resume_run(tmp_path, {"task": "pairs"}, silent)
    assert resume_run(tmp_path, {"steps": 9, "d_model": 8}, silent).options.steps == 9


def test_a_finished_run_wants_more_steps(text: str, tmp_path: Path) -> None:
    save_run(tmp_path, trained(text_options(text, steps=2), 2))
    with pytest.raises(DataError, match="is at step 2 of 2; give more --steps"):
        resume_run(tmp_path, {}, silent)


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"x": np.zeros(3)}, {"options": {"task": "text", "wings": 2}})
    with pytest.raises(CheckpointError, match="was not written by numtape train"):
        load_model(tmp_path)
    checkpoint.save(tmp_path, {"x": np.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="it has no options"):
        load_model(tmp_path)


def test_a_checkpoint_without_its_arrays_is_refused(text: str, tmp_path: Path) -> None:
    save_run(tmp_path, trained(text_options(text), 1))
    _, meta = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, {"model.x": np.zeros(3)}, meta)
    with pytest.raises(CheckpointError, match="does not hold a model"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="does not hold a model"):
        resume_run(tmp_path, {}, silent)


@pytest.mark.parametrize("name", ["random", "losses", "validation", "optimizer.step"])
def test_a_checkpoint_with_other_arrays_is_refused(text: str, tmp_path: Path, name: str) -> None:
    save_run(tmp_path, trained(text_options(text), 1))
    arrays, meta = checkpoint.load(tmp_path)
    for state in (arrays | {name: np.zeros((5, 5, 5))}, arrays | {name: np.zeros(7, np.uint8)}):
        checkpoint.save(tmp_path, state, meta)
        with pytest.raises(CheckpointError, match="not of this model"):
            resume_run(tmp_path, {}, silent)


def test_a_run_goes_on_with_its_own_data_only(text: str, tmp_path: Path) -> None:
    save_run(tmp_path / "run", trained(text_options(text), 1))
    Path(text).write_text("something else, and long enough\n" * 40)
    with pytest.raises(DataError, match=r"text.txt is not what the run .* was trained on"):
        resume_run(tmp_path / "run", {}, silent)
    other = tmp_path / "other.txt"
    other.write_text("to be or not to be\n" * 40)
    given = {"task": "text", "files": (str(other),)}
    assert resume_run(tmp_path / "run", given, silent).steps == 1


@pytest.mark.parametrize("settings", [{"files": ()}, {"valid": ("a",)}])
def test_as_many_files_as_a_task_needs(text: str, settings: dict) -> None:
    with pytest.raises(DataError, match=r"give --text or --pairs"):
        build_task(replace(text_options(text), **settings), silent)


@pytest.mark.parametrize(
    "settings",
    [
        *({"d_model": "8"}, {"betas": [0.9]}, {"lr": float("nan")}, {"steps": 10**30}),
        *({"files": "text"}, {"schedule": "none"}, {"threads": 10**9}, {"batch": 10**9}),
        *({"betas": [0.9, 1.5]}, {"pre_norm": 1}, {"seed": -1}, {"out": 3}, {"wings": 2}),
    ],
)
def test_options_that_no_run_has_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings)).replace("_", ".")):
        Options.from_dict({**PRESETS["text"].to_dict(), **settings})


@pytest.mark.parametrize(
    "settings",
    [
        *({"d_model": 10**9, "heads": 1}, {"vocab": 10**12}, {"context": 10**9}),
        *({"layers": 10**9}, {"experts": 10**9}, {"d_ff": 10**9}, {"d_model": 8.0}),
    ],
)
def test_no_model_is_built_that_the_arrays_do_not_make(
    text: str, tmp_path: Path, settings: dict
) -> None:
    save_run(tmp_path, trained(text_options(text), 1))
    arrays, meta = checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, arrays, {**meta, "config": {**meta["config"], **settings}})
    for load in (load_model, lambda folder: resume_run(folder, {}, silent)):
        with pytest.raises(CheckpointError, match="does not hold a model"):
            load(tmp_path)


def test_the_average_is_what_is_loaded(text: str, tmp_path: Path) -> None:
    trainer = Trainer(
        build_task(text_options(text, steps=40, average=0.75), silent),
        text_options(text, steps=40, average=0.75),
    )
    seen = []
    for _ in range(40):
        trainer.advance()
        if trainer.steps in (20, 30, 40):
            seen.append(trainer.task.model.state_dict()["embedding.weight"])
    save_run(tmp_path, trainer)
    assert trainer.use_average()
    model, _, options = load_model(tmp_path)
    mean = model.state_dict()["embedding.weight"]
    assert np.allclose(mean, np.mean(seen, 0), atol=1e-6)
    assert not np.array_equal(mean, seen[-1])
    assert np.array_equal(mean, trainer.task.model.state_dict()["embedding.weight"])
    assert not model.training and options.average == 0.75


# The loop


def test_a_free_folder_is_found(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "FOLDERS", tmp_path)
    options = text_options(text)
    assert new_folder(options) == tmp_path / "text"
    checkpoint.save(tmp_path / "text", {}, {})
    assert new_folder(options) == tmp_path / "text-2"
    with pytest.raises(DataError, match="has a run in it"):
        new_folder(replace(options, out=str(tmp_path / "text")))


def test_the_loop_saves_and_looks_at_the_validation_loss(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trainer = trained(text_options(text), 0)
    with Progress(0, 8) as progress:
        assert run_loop(trainer, tmp_path, progress)
    assert [step for step, _ in trainer.validation] == [4, 8]
    assert checkpoint.load(tmp_path)[1]["step"] == 8
    assert capsys.readouterr().out.count("validation loss") == 2
    assert progress.steps == 8 and progress.tokens == 8 * 16


def test_speed_is_that_of_the_steps_alone(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trained(text_options(text, steps=3, eval_every=1), 0)
    advance = trainer.advance

    def traced() -> int:
        time.sleep(0.2)
        monkeypatch.setattr(Trainer, "tracing", trainer.tracing + 0.2)
        return advance()

    trainer.advance = traced  # type: ignore[method-assign]
    trainer.validate = lambda: time.sleep(0.2) or 1.0  # type: ignore[method-assign]
    trainer.step.tape(*trainer.task.batch(0))
    with Progress(0, 3) as progress:
        run_loop(trainer, tmp_path, progress)
    assert progress.seconds > 1.2
    assert 0 < progress.stepping < 0.4
    assert progress.step_rate == 3 / progress.stepping


def test_the_bar_is_whole_from_the_first_frame(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(0, 200) as progress:
        assert capsys.readouterr().err.rstrip().endswith("|")
        progress.step(2.0, 50, 0.5)
        progress.bar.refresh()
        assert "| loss 2.0000, 100 tokens/s, 01:39 left" in capsys.readouterr().err


def test_a_signal_ends_the_loop_after_the_step(text: str, tmp_path: Path) -> None:
    trainer = trained(text_options(text), 0)
    advance = trainer.advance

    def interrupted() -> int:
        if trainer.steps == 4:
            signal.raise_signal(signal.SIGTERM)
        return advance()

    trainer.advance = interrupted  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGTERM)
    with Progress(0, 8) as progress:
        assert not run_loop(trainer, tmp_path, progress)
    assert checkpoint.load(tmp_path)[1]["step"] == 5
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)


def test_a_full_disk_does_not_end_the_training(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    trainer = trained(text_options(text), 2)
    save_run(tmp_path, trainer)

    def full(*_: object) -> None:
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(loop, "save_run", full)
    with Progress(2, 8) as progress, pytest.raises(CheckpointError):
        run_loop(trainer, tmp_path, progress)
    assert trainer.steps == 8
    assert capsys.readouterr().out.count("warning: the disk is full; training goes on") == 2
    assert checkpoint.load(tmp_path)[1]["step"] == 2


def test_a_full_disk_ends_the_training_where_that_is_asked(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trained(text_options(text, failed_save="stop"), 2)
    save_run(tmp_path, trainer)

    def full(*_: object) -> None:
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(loop, "save_run", full)
    with Progress(2, 8) as progress, pytest.raises(CheckpointError, match="disk is full"):
        run_loop(trainer, tmp_path, progress)
    assert trainer.steps == 3
    assert checkpoint.load(tmp_path)[1]["step"] == 2


def test_a_loss_that_is_no_number_ends_the_training(text: str) -> None:
    trainer = trained(text_options(text, lr=1e30, warmup=1, clip=0.0), 0)
    with pytest.raises(TrainingError, match="lower --lr"), np.errstate(all="ignore"):
        for _ in range(8):
            trainer.advance()
