"""Arrays and settings to a folder and back: how a training run survives being killed.

A checkpoint is two files: tensors-<digest>.safetensors, and the manifest that names its digest.
Both are written beside the old ones, the tensors are renamed, and the rename of the manifest is
the commit; only then are older tensors removed: whatever happens when, the last commit loads.
The one before it stays in the folder `previous`, a checkpoint like any other, for the day on which
the disk has lost a bit. One process at a time saves into a folder; both files are read as if a
stranger had written them.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from numtape.training import stored
from numtape.training.errors import CheckpointError, DamagedError

MANIFEST, PREVIOUS = "numtape-checkpoint.json", "previous"
FORMAT, VERSION = "numtape checkpoint", 1
MANIFEST_LIMIT = 64 * 2**20

_DIGEST = re.compile(r"[0-9a-f]{64}")
_OURS = re.compile(r"tensors-[0-9a-f]{16}\.safetensors(\.tmp)?")
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file is larger than this system allows; choose another folder",
    errno.EACCES: "it may not be written; change its permissions or choose another folder",
    errno.EPERM: "it may not be written; change its permissions or choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOTDIR: "a part of that path is a file; choose another folder",
    errno.EEXIST: "it is a file; choose another folder",
}

Arrays = dict[str, np.ndarray]
FolderPath = str | PathLike[str]


def save(folder: FolderPath, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Replace the checkpoint in `folder`, which is made if need be, by these arrays and `meta`.

    `arrays`: any shapes, of the number and bool dtypes of safetensors. `meta`: what JSON can
    hold; tuples come back as lists, keys as text. Raises CheckpointError where that cannot be
    written; the checkpoint that was there before is then still there.
    """
    folder = Path(folder)
    tensors = _serialise(folder, arrays)
    digest = hashlib.sha256(tensors).hexdigest()
    manifest = _manifest(folder, {"sha256": digest, "bytes": len(tensors)}, meta)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _commit(folder, {_tensor_name(digest): tensors, MANIFEST: manifest}, _keep_previous)
        _remove_others(folder, _tensor_name(digest))
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"{error}; choose another folder")
        raise CheckpointError(
            f"cannot save {len(tensors)} bytes of checkpoint in {folder}: {reason}; "
            "any checkpoint that was there before is intact"
        ) from error


def load(folder: FolderPath) -> tuple[Arrays, dict[str, Any]]:
    """The arrays, writable and owned by the caller, and the meta of the checkpoint in `folder`.

    Raises CheckpointError where there is none, or it is foreign or of another version;
    DamagedError, which is one and names the way out, where it is truncated or altered.
    """
    folder = Path(folder)
    if not exists(folder) and not exists(folder / PREVIOUS):
        raise CheckpointError(
            f"there is no numtape checkpoint in {folder}: {MANIFEST} is missing; check the path"
        )
    try:
        return _load(folder)
    except DamagedError as error:
        raise DamagedError(f"{error}; {_way_out(folder)}") from error


def _load(folder: Path) -> tuple[Arrays, dict[str, Any]]:
    content = _read_manifest(folder / MANIFEST)
    path = folder / _tensor_name(content["tensors"]["sha256"])
    tensors = _read_tensors(path, content["tensors"])
    try:
        return stored.unpack(tensors), content["meta"]
    except ValueError as error:
        raise DamagedError(f"{path} is not a safetensors file: {error}") from error


def _way_out(folder: Path) -> str:
    try:
        _load(folder / PREVIOUS)
    except CheckpointError:
        return "restore the folder from a copy, or remove it and train anew"
    return f"the checkpoint before it is whole: give {folder / PREVIOUS} instead"


def exists(folder: FolderPath) -> bool:
    """Whether there is a checkpoint to load, sound or not."""
    return os.path.exists(Path(folder) / MANIFEST)


def _tensor_name(digest: str) -> str:
    return f"tensors-{digest[:16]}.safetensors"


def _serialise(folder: Path, arrays: Mapping[str, np.ndarray]) -> bytes:
    # safetensors writes the memory as it lies: a transposed array would come back scrambled.
    native = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        return bytes(safetensors.numpy.save(native))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        dtypes = {name: str(array.dtype) for name, array in native.items()}
        raise CheckpointError(
            f"cannot save these arrays in {folder}: {error}; give numbers or bools, not {dtypes}"
        ) from error


def _manifest(folder: Path, tensors: dict[str, Any], meta: Mapping[str, Any]) -> bytes:
    try:
        # Through JSON and back, so that the digest is of what will be read.
        content = json.loads(json.dumps({"tensors": tensors, "meta": meta}))
        document = {
            "format": FORMAT,
            "version": VERSION,
            "sha256": _digest(folder / MANIFEST, content),
            **content,
        }
        manifest = json.dumps(document, indent=1).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot save this meta in {folder}: {error}; give only what JSON can hold"
        ) from error
    if len(manifest) > MANIFEST_LIMIT:
        raise CheckpointError(
            f"cannot save {len(manifest)} bytes of meta in {folder}: more than the "
            f"{MANIFEST_LIMIT} that can be loaded; give large values as arrays"
        )
    return manifest


def _digest(path: Path, content: Mapping[str, Any]) -> str:
    """The checksum of the manifest itself, whatever its spacing and order."""
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError as error:
        raise DamagedError(f"{path} is nested too deeply") from error


def _commit(
    folder: Path, files: dict[str, bytes], between: Callable[[Path], None] | None = None
) -> None:
    """Put every file on the disk, do what is to be done, rename them into place in this order."""
    staged = {folder / f"{name}.tmp": data for name, data in files.items()}
    try:
        for path, data in staged.items():
            _write(path, data)
        if between:
            between(folder)
        for path in staged:
            os.replace(path, path.with_suffix(""))
            _sync_folder(folder)
    except OSError:
        for path in staged:
            _remove(path)
        raise


def _keep_previous(folder: Path) -> None:
    """What the folder holds becomes the checkpoint of `previous` below it, where it can be read.

    A kill in here can cost the older one, never the one that the folder holds.
    """
    try:
        tensors = _tensor_name(_read_manifest(folder / MANIFEST)["tensors"]["sha256"])
    except CheckpointError:
        return
    source, previous = folder / tensors, folder / PREVIOUS
    if not source.is_file() or previous.is_symlink():
        return
    previous.mkdir(exist_ok=True)
    beside = previous / f"{tensors}.tmp"
    _remove(beside)
    _link(source, beside)
    os.replace(beside, previous / tensors)
    _commit(previous, {MANIFEST: (folder / MANIFEST).read_bytes()})
    _remove_others(previous, tensors)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)
        with open(target, "rb") as file:
            os.fsync(file.fileno())


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_others(folder: Path, current: str) -> None:
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name != current:
            _remove(path)


def _remove(path: Path) -> None:
    # What cannot be removed is rubbish, not a failure: the next save tries again.
    with suppress(OSError):
        path.unlink()


def _read(path: Path, size: int | None = None) -> bytearray:
    """The bytes of a regular file, which are `size` if that is given, and never through a link."""
    try:
        if path.is_symlink() or not os.path.isfile(path):
            state = "is not a plain file" if os.path.exists(path) else "is missing"
            raise DamagedError(f"{path} {state}: the checkpoint is not whole")
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if size not in (None, found):
                raise DamagedError(
                    f"{path} has {found} bytes and its manifest says {size}: truncated or replaced"
                )
            if size is None and found > MANIFEST_LIMIT:
                raise CheckpointError(
                    f"{path} has more than {MANIFEST_LIMIT} bytes: not a manifest; give a "
                    "checkpoint's folder"
                )
            data = bytearray(found)
            file.readinto(data)
            return data
    except MemoryError:
        raise CheckpointError(f"{path} has {found} bytes, for which there is no memory") from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; make it readable, or give another folder"
        ) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    """The parsed and checked manifest."""
    raw = _read(path)
    try:
        content = stored.parse(raw)
    except ValueError as error:
        raise DamagedError(
            f"{path} is truncated or not JSON ({len(raw)} bytes): {error}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by numtape; give a checkpoint's folder")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has format version {str(content.get('version'))[:40]} and this numtape reads "
            f"version {VERSION}; load it with the numtape that wrote it"
        )
    _check_manifest(path, content)
    return content


def _check_manifest(path: Path, content: dict[str, Any]) -> None:
    tensors, meta = content.get("tensors"), content.get("meta")
    sound = (
        isinstance(meta, dict)
        and isinstance(tensors, dict)
        and isinstance(tensors.get("sha256"), str)
        # Part of a file name, so nothing but a digest: no way out of the folder.
        and _DIGEST.fullmatch(tensors["sha256"]) is not None
        and type(tensors.get("bytes")) is int
        and tensors["bytes"] >= 0
        and content.get("sha256") == _digest(path, {"tensors": tensors, "meta": meta})
    )
    if not sound:
        raise DamagedError(f"{path} has been altered: its checksum does not match")


def _read_tensors(path: Path, expected: dict[str, Any]) -> bytearray:
    tensors = _read(path, expected["bytes"])
    if hashlib.sha256(tensors).hexdigest() != expected["sha256"]:
        raise DamagedError(f"{path} has been altered: its sha256 is not {expected['sha256']}")
    return tensors
