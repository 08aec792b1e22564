"""Checkpoints: exact round trips, refusal of anything unsound, and survival of being killed."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import META, arrays_of, assert_step, tensor_file

from numtape.training import checkpoint
from numtape.training.checkpoint import MANIFEST, PREVIOUS, exists, load, save
from numtape.training.errors import CheckpointError, DamagedError

# Round trips

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
KINDS = ["bool", *INTEGERS, "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: str, shape: tuple) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    save(tmp_path, {"x": array}, {})
    loaded = load(tmp_path)[0]["x"]
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert loaded.tobytes() == array.tobytes()


def test_every_bit_of_a_float_comes_back(tmp_path: Path) -> None:
    bits = np.array([0, 0x80000000, 1, 0x7F800000, 0xFFC00001, 0x3F800001], np.uint32)
    save(tmp_path, {"x": bits.view(np.float32)}, {})
    assert (load(tmp_path)[0]["x"].view(np.uint32) == bits).all()


def test_arrays_that_are_not_laid_out_in_order(tmp_path: Path) -> None:
    array = np.arange(24.0).reshape(4, 6)
    save(tmp_path, {"t": array.T, "s": array[::2, ::-1], "big": array.astype(">f8")}, {})
    loaded, _ = load(tmp_path)
    assert (loaded["t"] == array.T).all()
    assert (loaded["s"] == array[::2, ::-1]).all()
    assert (loaded["big"] == array).all()


def test_meta_comes_back_and_arrays_are_writable(saved: Path) -> None:
    arrays, meta = load(saved)
    assert meta == META
    arrays["a.weight"] += 1
    assert exists(saved)


def test_meta_comes_back_as_json_has_it(tmp_path: Path) -> None:
    save(tmp_path, {}, {"best": float("inf"), "by step": {10: "b", 9: "a"}, "pair": (1, 2)})
    _, meta = load(tmp_path)
    assert meta == {"best": float("inf"), "by step": {"10": "b", "9": "a"}, "pair": [1, 2]}


def test_saving_again_replaces_and_leaves_two_files(saved: Path) -> None:
    (saved / "notes.txt").write_text("not ours")
    for step in (8, 9, 9):
        save(saved, arrays_of(step), {"step": step})
        assert_step(saved, step)
    assert {path.name for path in saved.iterdir()} == {
        MANIFEST,
        tensor_file(saved).name,
        "notes.txt",
        PREVIOUS,
    }
    assert_step(saved / PREVIOUS, 9)
    assert len(list((saved / PREVIOUS).iterdir())) == 2


@pytest.mark.parametrize("which", ["manifest", "tensors"])
@pytest.mark.parametrize("damage", ["cut", "bit", "missing"])
def test_the_checkpoint_before_is_the_way_out(saved: Path, which: str, damage: str) -> None:
    save(saved, arrays_of(8), {"step": 8})
    path = saved / MANIFEST if which == "manifest" else tensor_file(saved)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if damage == "cut" else whole[:-9] + b"?" + whole[-8:])
    if damage == "missing":
        path.unlink()
    with pytest.raises(DamagedError, match=rf"{path.name}.*whole: give {saved / PREVIOUS}"):
        load(saved)
    assert_step(saved / PREVIOUS, 7)
    save(saved, arrays_of(9), {"step": 9})
    assert_step(saved, 9)


def test_without_a_sound_one_before_the_way_out_is_a_copy(saved: Path) -> None:
    save(saved, arrays_of(8), {"step": 8})
    for folder in (saved, saved / PREVIOUS):
        tensor_file(folder).write_bytes(b"")
    with pytest.raises(DamagedError, match="restore the folder from a copy"):
        load(saved)


def test_where_there_are_no_links_the_one_before_is_copied(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", fail)
    save(saved, arrays_of(8), {"step": 8})
    assert_step(saved, 8)
    assert_step(saved / PREVIOUS, 7)


# Refusals


def test_a_missing_folder_or_checkpoint(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert not exists(folder)
        with pytest.raises(CheckpointError, match=f"no numtape checkpoint in {folder}"):
            load(folder)


@pytest.mark.parametrize("which", ["manifest", "tensors"])
def test_truncation_at_every_position(saved: Path, which: str) -> None:
    path = saved / MANIFEST if which == "manifest" else tensor_file(saved)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=rf"{path.name}.*truncated"):
            load(saved)
    path.write_bytes(whole)
    assert_step(saved, 7)


@pytest.mark.parametrize("which", ["manifest", "tensors"])
def test_a_flipped_bit_is_found_wherever_it_is(saved: Path, which: str) -> None:
    path = saved / MANIFEST if which == "manifest" else tensor_file(saved)
    whole = path.read_bytes()
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        try:
            _, meta = load(saved)
        except CheckpointError as error:
            assert str(saved) in str(error)
        else:  # only what means the same: white space in the manifest
            assert which == "manifest"
            assert meta == META


def rewrite(folder: Path, **changes: Any) -> None:
    """Alter the manifest and make its checksum fit, as an attacker would."""
    content = json.loads((folder / MANIFEST).read_text()) | changes
    inner = {"tensors": content["tensors"], "meta": content["meta"]}
    content["sha256"] = checkpoint._digest(folder, inner)
    (folder / MANIFEST).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated or not JSON"),
        ("[" * 100_000, "truncated or not JSON"),
        ("[1, 2]", "not written by numtape"),
        ('{"format": "other", "version": 1}', "not written by numtape"),
        ('{"version": 1}', "not written by numtape"),
        ('{"format": "numtape checkpoint", "version": 2}', "version 2 .* reads version 1"),
        ('{"format": "numtape checkpoint"}', "version None"),
        ('{"format": "numtape checkpoint", "version": 1}', "altered"),
    ],
)
def test_foreign_manifests(saved: Path, text: str, message: str) -> None:
    (saved / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load(saved)


def test_a_manifest_that_is_not_text(saved: Path) -> None:
    (saved / MANIFEST).write_bytes(b"\x80\xff\x00")
    with pytest.raises(CheckpointError, match="not JSON"):
        load(saved)


@pytest.mark.parametrize(
    "tensors",
    [
        None,
        {"sha256": "../../../../etc/passwd", "bytes": 1},
        {"sha256": "/" + "a" * 63, "bytes": 1},
        {"sha256": "A" * 64, "bytes": 1},
        {"sha256": "a" * 64 + "\n", "bytes": 1},
        {"sha256": ["a" * 64], "bytes": 1},
        {"sha256": "a" * 64, "bytes": -1},
        {"sha256": "a" * 64, "bytes": "1"},
        {"sha256": "a" * 64, "bytes": True},
        {"sha256": "a" * 64},
    ],
)
def test_a_hostile_manifest_names_no_other_file(saved: Path, tensors: Any) -> None:
    rewrite(saved, tensors=tensors)
    with pytest.raises(CheckpointError, match="altered"):
        load(saved)


def test_a_hostile_manifest_of_the_wrong_size(saved: Path) -> None:
    tensors = json.loads((saved / MANIFEST).read_text())["tensors"]
    rewrite(saved, tensors=tensors | {"bytes": 10**18})
    with pytest.raises(CheckpointError, match=f"manifest says {10**18}"):
        load(saved)


def test_a_missing_or_linked_tensor_file(saved: Path, tmp_path: Path) -> None:
    path = tensor_file(saved)
    elsewhere = path.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{path.name} is missing"):
        load(saved)
    path.symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=f"{path.name} is not a plain file"):
        load(saved)


def test_an_oversized_manifest_is_neither_read_nor_written(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MANIFEST_LIMIT", 400)
    with pytest.raises(CheckpointError, match="bytes of meta"):
        save(saved, arrays_of(8), {"long": "x" * 400})
    with pytest.raises(CheckpointError, match="more than 400 bytes"):
        (saved / MANIFEST).write_text(" " * 401)
        load(saved)


def test_sound_checksums_around_what_is_not_safetensors(saved: Path) -> None:
    data = b"\xff" * 100
    digest = checkpoint.hashlib.sha256(data).hexdigest()
    (saved / f"tensors-{digest[:16]}.safetensors").write_bytes(data)
    rewrite(saved, tensors={"sha256": digest, "bytes": len(data)})
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(saved)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([None]), np.array([1j])])
def test_arrays_that_cannot_be_saved(saved: Path, array: np.ndarray) -> None:
    with pytest.raises(CheckpointError, match="numbers or bools"):
        save(saved, {"x": array}, {})
    assert_step(saved, 7)


@pytest.mark.parametrize("value", [object(), np.float32(1), {1, 2}, b"bytes"])
def test_meta_that_cannot_be_saved(saved: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match="what JSON can hold"):
        save(saved, arrays_of(8), {"value": value})
    assert_step(saved, 7)
