"""What a newcomer runs first: the examples in short form, and the documents' Python blocks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHORT = {
    "first_gradient": [],
    "inspect_passes": ["--picture", "step.dot"],
    "translate_dates": ["--quick"],
    "character_gpt": ["--quick"],
    "mixture_of_experts": ["--quick"],
}
DOCUMENTS = ("README.md", "docs/guide.md", "docs/extending.md", "docs/derivations.md")


def blocks(document):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text("utf-8"), re.M | re.S)


def run(folder, *arguments):
    # One thread each: tests run side by side, and threads that wait for a core slow all down.
    own = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "OPENBLAS_NUM_THREADS": "1"}
    environment = {**os.environ, **own}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(SHORT)


@pytest.mark.parametrize("name, arguments", SHORT.items(), ids=SHORT)
def test_example(name, arguments, tmp_path):
    assert run(tmp_path, str(ROOT / "examples" / f"{name}.py"), *arguments)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_blocks_run(document, tmp_path):
    """Each document's blocks are one program each; those of the README stand alone."""
    found = blocks(document)
    assert found
    programs = found if document == "README.md" else ["\n".join(found)]
    for i, text in enumerate(programs):
        path = tmp_path / f"block{i}.py"
        path.write_text(text, "utf-8")
        run(tmp_path, str(path))


def test_the_readme_shows_what_the_example_prints(tmp_path):
    """Each line of its excerpts, but for the time that a pass took."""
    printed = run(tmp_path, str(ROOT / "examples" / "inspect_passes.py"))
    known = {timeless(line) for line in printed.splitlines()}
    shown = section("README.md", "What you can see")
    excerpts = re.findall(r"^```text\n(.*?)^```", shown, re.M | re.S)
    assert len(excerpts) == 4
    lines = [line for text in excerpts for line in text.splitlines() if line.strip() != "..."]
    assert [line for line in lines if timeless(line) not in known] == []


def timeless(line):
    """A line of whatever indentation, without milliseconds and rules."""
    return re.sub(r" +(\d+\.\d\d|ms)$", "", line.strip()).replace("─", "")


def section(document, title):
    text = (ROOT / document).read_text("utf-8")
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_readmes_operation_passes_the_suite_of_operations(tmp_path):
    """It says so: the suite finds a new operation and checks it from its example."""
    (text,) = (b for b in blocks("README.md") if "Op(" in b)
    suite = ["-p", "no:xdist", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    chosen = [str(ROOT / "tests" / "test_ops.py"), "-k", "hypot"]
    path = tmp_path / "new_operation.py"
    path.write_text(
        f"{text}\nimport pytest\nraise SystemExit(pytest.main({suite + chosen}))\n", "utf-8"
    )
    passed = run(tmp_path, str(path))
    assert "hypot" not in passed and "100%" in passed
