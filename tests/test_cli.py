"""The command line: runs from beginning to end, Ctrl-C, errors in one line, and quick help."""

import gzip
import io
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numtape.cli.main import main
from numtape.training import checkpoint, evaluate, tasks

SMALL = "--d-model 8 --heads 2 --layers 1 --d-ff 8 --eval-every 4 --save-every 3"
TEXT = f"{SMALL} --context 8 --batch 2"
PAIRS = f"{SMALL} --vocab 0 --batch-tokens 64 --shapes 1 --max-length 16"
COMMAND = [sys.executable, "-m", "numtape.cli.main"]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be\n" * 40)
    sources = [f"{'ab' * (1 + i % 3)}c\n" for i in range(24)]
    targets = [f"{'xy' * (1 + i % 3)}\n" for i in range(24)]
    Path("source.gz").write_bytes(gzip.compress("".join(sources).encode()))
    Path("target").write_text("".join(targets))


def run(*arguments: str) -> int:
    return main([word for argument in arguments for word in argument.split()])


def fails(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The one line that the command ends with."""
    try:
        code = run(*arguments)
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr().err
    assert code == 2
    assert shown.startswith("numtape: error: ") and shown.count("\n") == 1
    return shown


def train_text(*more: str) -> int:
    return run("train --text text.txt", TEXT, *more)


def train_pairs(*more: str) -> int:
    return run("train --pairs source.gz target", PAIRS, *more)


# Training


def test_text_from_beginning_to_end(capsys: pytest.CaptureFixture) -> None:
    assert train_text("--steps 8") == 0
    shown = capsys.readouterr().out
    for words in (
        "model     GPT,",
        "step      8   validation loss",
        "steps/s",
        "runs/text/loss.png",
    ):
        assert words in shown
    names = {path.name for path in Path("runs/text").iterdir()}
    assert {"numtape-checkpoint.json", "loss.png", "step.py"} <= names

    assert run("generate runs/text --tokens 20 --seed 3 --prompt to") == 0
    first = capsys.readouterr().out
    assert first.startswith("to") and len(first) == 23
    assert run("generate runs/text --tokens 20 --seed 3 --prompt to --top-k 50") == 0
    assert capsys.readouterr().out == first
    assert train_text("--steps 1") == 0
    assert Path("runs/text-2").exists()


def test_pairs_from_beginning_to_end(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sacrebleu")
    settings = "--steps 200 --warmup 10 --lr 2e-2 --schedule cosine --eval-every 50 --average 0"
    assert train_pairs(settings, "--valid source.gz target --out run") == 0
    assert "target  xyxyxy\nfound   xyxyxy" in capsys.readouterr().out

    Path("wanted").write_text("xyxy\nxy\n")
    Path("given").write_text("ababc\nabc\n")
    assert run("translate run --input given --output found --reference wanted") == 0
    assert Path("found").read_text() == "xyxy\nxy\n"
    assert "BLEU " in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc\n\nababc\n")))
    assert run("translate run --beam 1") == 0
    assert capsys.readouterr().out == "xy\n\nxyxy\n"


def test_dates_need_no_argument(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "TRAINING_DATES", 60)
    monkeypatch.setattr(tasks, "HELD_OUT_DATES", 8)
    assert run("train --steps 2 --shapes 1 --batch-tokens 256", SMALL) == 0
    assert "Exact match on 8 held-out dates" in capsys.readouterr().out


def test_resuming_gives_the_same_bits() -> None:
    settings = "--schedule constant --dropout 0.2 --seed 5"
    assert train_text(settings, "--steps 7 --out whole") == 0
    assert train_text(settings, "--steps 3 --out part") == 0
    assert run("train --resume part --steps 7") == 0
    (whole, _), (part, meta) = checkpoint.load("whole"), checkpoint.load("part")
    assert meta["step"] == 7
    assert whole.keys() == part.keys()
    for name in whole.keys() - {"validation"}:
        assert np.array_equal(whole[name], part[name]), name


def test_averaged_parameters_are_judged(capsys: pytest.CaptureFixture) -> None:
    assert train_pairs("--steps 10 --average 0.5") == 0
    assert "averaged      validation loss" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: int) -> None:
    arguments = f"train --text text.txt --steps 1000000 --out run {TEXT}"
    process = subprocess.Popen(
        [*COMMAND, *arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "validation loss" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "is saved in run.\nGo on with: numtape train --resume run" in shown
    assert errors == ""
    step = checkpoint.load("run")[1]["step"]
    assert step >= 4
    assert run(f"train --resume run --steps {step + 1}") == 0
    assert checkpoint.load("run")[1]["step"] == step + 1


# Drawing


@pytest.mark.parametrize("model", ["gpt", "transformer", "moe"])
def test_examples_are_drawn(model: str, capsys: pytest.CaptureFixture) -> None:
    assert run(f"graph --model {model} --detail modules -o picture.dot") == 0
    assert capsys.readouterr().out == "picture.dot\n"
    assert "digraph" in Path("picture.dot").read_text()


def test_a_checkpoint_is_drawn() -> None:
    assert train_text("--steps 1 --out run") == 0
    for stage in ("traced", "joint", "optimized"):
        assert run(f"graph run --stage {stage} --detail ops -o {stage}.dot") == 0
    assert len(Path("joint.dot").read_text()) > len(Path("traced.dot").read_text())


# Errors and help


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("train --stps 4", "did you mean --steps?"),
        ("train --heads x", "invalid int value"),
        ("train --layer 1", "unknown: --layer 1; did you mean --layers?"),
        ("train --foo", "unknown: --foo ("),
        ("train --pre-norm --post-norm", "not allowed with argument --pre-norm"),
        ("train --threads 0", "--threads is at least 1, not 0"),
        ("train --lr nan", "--lr is a finite number of at least 0, not nan"),
        ("train --experts -1", "--experts is a finite number of at least 0, not -1"),
        ("train --dropout 1.5", "--dropout is at least 0 and below 1, not 1.5"),
        ("train --tie-embeddings all", "needs one vocabulary"),
        ("train --text text.txt --context 700", "use a shorter context or a longer text"),
        ("train --pairs source.gz target --vocab 0 --batch-tokens 5", "allow batches of at least"),
        ("translate run --beam 0", "argument --beam: give at least 1, not 0"),
        ("translate run --threads 0", "argument --threads: give at least 1, not 0"),
        ("generate run --temperature -1", "argument --temperature: give at least 0, not -1"),
        ("generate run --temperature nan", "argument --temperature: give at least 0, not nan"),
        ("generate run --tokens many", "argument --tokens: invalid int value: 'many'"),
        ("train --heads 3", "--heads 3 does not divide --d-model 64"),
        ("train --context 9", "--context does not apply to the task 'dates'"),
        ("train --steps 0", "--steps is at least 1"),
        ("train --text absent", "absent does not exist"),
        ("train --text empty", "empty is empty"),
        ("train --text latin", "latin is not UTF-8"),
        ("train --pairs target text.txt", "24 lines and text.txt has 40"),
        ("train --resume absent", "there is no numtape checkpoint in absent"),
        ("train --text text.txt --out target/run", "cannot save"),
        ("translate absent", "there is no numtape checkpoint"),
        ("graph -o picture.bmp", "the ending must be"),
        ("graph", "required: -o"),
        ("trian", "invalid choice"),
    ],
)
def test_errors_are_one_line(arguments: str, words: str, capsys: pytest.CaptureFixture) -> None:
    Path("empty").write_text("")
    Path("latin").write_bytes("grün\n".encode("latin-1"))
    assert words in fails(capsys, arguments)


def test_models_and_commands_must_fit(capsys: pytest.CaptureFixture) -> None:
    assert train_text("--steps 1 --out run") == 0
    capsys.readouterr()
    assert "use numtape generate" in fails(capsys, "translate run")
    assert "would change the model" in fails(capsys, "train --resume run --layers 2")
    assert "has a run in it" in fails(capsys, "train --out run")
    assert "character 'Z'" in fails(capsys, "generate run --prompt Z")
    tensors = next(Path("run").glob("tensors-*"))
    tensors.write_bytes(tensors.read_bytes()[:-9])
    assert "truncated" in fails(capsys, "generate run")


def test_an_unknown_character_is_named_with_its_line(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_pairs("--steps 1 --out run") == 0
    Path("given").write_text("abc\nab?\n")
    capsys.readouterr()
    assert "given, line 2: character '?'" in fails(capsys, "translate run --input given")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"!")))
    assert "the input, line 1: character '!'" in fails(capsys, "translate run")
    Path("other").write_text("xy\nyx?\n")
    files = "train --pairs source.gz target --valid given other"
    Path("given").write_text("abc\nabc\n")
    assert "validation target, line 2: character '?'" in fails(capsys, files, PAIRS)


def test_references_are_counted_before_a_library_is_missed(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_pairs("--steps 1 --out run") == 0
    capsys.readouterr()
    monkeypatch.setattr(evaluate, "sacrebleu", None)
    Path("given").write_text("abc\n")
    command = "translate run --input given --reference"
    assert "1 lines to translate and 24 references" in fails(capsys, command, "target")
    assert "pip install sacrebleu" in fails(capsys, command, "given")


def test_help_tells_the_default_of_each_task(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run("train --help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: dates 4 times --d-model, pairs 512, text 4 times --d-model)" in shown
    assert "threads of BLAS (default: dates 1, pairs as many as BLAS finds, text 1)" in shown
    assert "norms before the sublayers (the default)" in shown
    assert "None" not in shown


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="absent does not exist"):
        run("train --debug --text absent")


@pytest.mark.parametrize("command", ["", "train", "translate", "generate", "graph"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    assert "usage: numtape" in capsys.readouterr().out


def test_slow_libraries_wait_until_they_are_used() -> None:
    program = (
        "import sys, numtape.cli.main\n"
        "slow = ('matplotlib.figure', 'sacrebleu.metrics')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]"
