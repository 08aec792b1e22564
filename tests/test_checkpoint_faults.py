"""Checkpoints on disks that fail and in processes that are killed."""

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import arrays_of, assert_step, tensor_file

from numtape.training.checkpoint import MANIFEST, PREVIOUS, load, save
from numtape.training.errors import CheckpointError, DamagedError


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "disk is full; free some space"),
        (errno.EACCES, "may not be written; change its permissions"),
        (errno.EROFS, "disk is read-only"),
        (errno.EIO, "error"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_system_call_leaves_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str, call: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(CheckpointError, match=rf"(?s){saved}: .*{message}"):
            save(saved, arrays_of(8), {"step": 8})
    assert_step(saved, 7)
    assert not list(saved.glob("*.tmp"))


BLOCK = 4096


@pytest.mark.parametrize("which", ["manifest", "tensors"])
def test_a_file_cut_at_every_block_names_itself_and_the_way_out(
    tmp_path: Path, which: str
) -> None:
    for step in (7, 8):
        weights = {"w": np.arange(20_000.0) + step}
        save(tmp_path, arrays_of(step) | weights, {"step": step, "text": ["word"] * 5_000})
    path = tmp_path / MANIFEST if which == "manifest" else tensor_file(tmp_path)
    whole = path.read_bytes()
    assert len(whole) > 10 * BLOCK
    for size in range(0, len(whole), BLOCK):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedError, match=rf"{path.name}.*truncated.*{PREVIOUS} instead"):
            load(tmp_path)
    assert_step(tmp_path / PREVIOUS, 7)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "numtape", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_and_a_read_only_disk(small_disk: Path) -> None:
    save(small_disk / "run", arrays_of(7), {"step": 7})
    with pytest.raises(CheckpointError, match="disk is full; free some space"):
        save(small_disk / "run", {"x": np.zeros(100_000)}, {"step": 8})
    assert_step(small_disk / "run", 7)
    save(small_disk / "run", arrays_of(9), {"step": 9})
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CheckpointError, match="disk is read-only; choose another folder"):
        save(small_disk / "run", arrays_of(10), {"step": 10})
    assert_step(small_disk / "run", 9)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="it is a file"):
        save(tmp_path / "file", {}, {})
    with pytest.raises(CheckpointError, match="part of that path is a file"):
        save(tmp_path / "file" / "run", {}, {})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_write_permission(saved: Path) -> None:
    saved.chmod(0o555)
    try:
        with pytest.raises(CheckpointError, match="may not be written"):
            save(saved, arrays_of(8), {"step": 8})
        assert_step(saved, 7)
    finally:
        saved.chmod(0o755)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


STEPS_TO_DISK = [
    *(("builtins", "open"), ("os", "fsync"), ("os", "replace"), ("os", "link")),
    *(("os", "unlink"), ("os", "mkdir")),
]


@pytest.mark.parametrize("late", [False, True])
def test_being_killed_around_every_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """The process ends right before, or right after, the Nth call that touches the disk."""
    outcomes = []
    for fatal in range(1, 60):
        folder = tmp_path / str(fatal)
        save(folder, arrays_of(7), {"step": 7})
        calls = [0]
        with monkeypatch.context() as patch:
            for module, name in STEPS_TO_DISK:
                patch.setattr(f"{module}.{name}", counted(module, name, calls, fatal, late))
            try:
                save(folder, arrays_of(8), {"step": 8})
            except Killed:
                outcomes.append(assert_step(folder, 7, 8))
                save(folder, arrays_of(9), {"step": 9})
                assert_step(folder, 9)
                assert {p.name for p in folder.iterdir()} == {
                    MANIFEST,
                    PREVIOUS,
                    tensor_file(folder).name,
                }
                assert_step(folder / PREVIOUS, 7, 8)
            else:
                break
    assert len(outcomes) >= 8
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {7, 8}


def counted(module: str, name: str, calls: list[int], fatal: int, late: bool) -> Any:
    original = getattr(sys.modules[module], name)

    def call(*arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == fatal and not late:
            raise Killed
        # A step that fails (there is nothing to unlink) is a step, too.
        result, fault = None, None
        try:
            result = original(*arguments, **settings)
        except OSError as error:
            fault = error
        if calls[0] == fatal:
            if name == "open":
                result.close()
            raise Killed
        if fault is not None:
            raise fault
        return result

    return call


SAVER = """
import sys
import numpy as np
from numtape.training.checkpoint import save
for step in range(1, 1_000_000):
    weight = np.full((3, 4), step, np.float32)
    count = np.array(step, np.int64)
    save(sys.argv[1], {"a.weight": weight, "count": count}, {"step": step})
    print(step, flush=True)
"""


def test_killing_a_saving_process_a_dozen_times(tmp_path: Path) -> None:
    moments = random.Random(0)
    folders = [tmp_path / str(number) for number in range(12)]
    processes = [
        subprocess.Popen([sys.executable, "-c", SAVER, folder], stdout=subprocess.PIPE, text=True)
        for folder in folders
    ]
    for folder, process in zip(folders, processes, strict=True):
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        rest = process.communicate()[0]
        reported = int((first + rest).split()[-1])
        assert_step(folder, reported, reported + 1)


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A limit on the size of files makes a real write stop half way."""
    resource = pytest.importorskip("resource", reason="no limits on this system")
    save(tmp_path, arrays_of(7), {"step": 7})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot save 8000\d\d bytes"):
            save(tmp_path, {"x": np.zeros(100_000)}, {"step": 8})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_step(tmp_path, 7)
    assert len(list(tmp_path.iterdir())) == 2
