"""Arrays and settings to a folder and back: how a training run survives being killed.

A checkpoint is two files: tensors-<digest>.safetensors, and the manifest that names its digest.
Both are written beside the old ones, the tensors are renamed, and the rename of the manifest is
the commit; only then are older tensors removed: whatever happens when, the last commit loads.
One process at a time saves into a folder; a manifest is read as if a stranger had written it.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from numtape.training.errors import CheckpointError

MANIFEST = "numtape-checkpoint.json"
FORMAT, VERSION = "numtape checkpoint", 1
MANIFEST_LIMIT = 64 * 2**20

_DIGEST = re.compile(r"[0-9a-f]{64}")
_OURS = re.compile(r"tensors-[0-9a-f]{16}\.safetensors(\.tmp)?")
_ADVICE = "restore the folder from a copy, or remove it and train anew"
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
        _commit(folder, {_tensor_name(digest): tensors, MANIFEST: manifest})
        _remove_others(folder, _tensor_name(digest))
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"{error}; choose another folder")
        raise CheckpointError(
            f"cannot save {len(tensors)} bytes of checkpoint in {folder}: {reason}; "
            "any checkpoint that was there before is intact"
        ) from error


def load(folder: FolderPath) -> tuple[Arrays, dict[str, Any]]:
    """The arrays, writable and owned by the caller, and the meta of the checkpoint in `folder`.

    Raises CheckpointError where there is none, or it is truncated, altered, foreign or of
    another version.
    """
    folder = Path(folder)
    if not exists(folder):
        raise CheckpointError(
            f"there is no numtape checkpoint in {folder}: {MANIFEST} is missing; check the path"
        )
    content = _read_manifest(folder / MANIFEST)
    path = folder / _tensor_name(content["tensors"]["sha256"])
    tensors = _read_tensors(path, content["tensors"])
    try:
        arrays = safetensors.numpy.load(tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}; {_ADVICE}") from error
    owned = {name: np.require(array, None, ["A", "W"]) for name, array in arrays.items()}
    return owned, content["meta"]


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
        document = {"format": FORMAT, "version": VERSION, "sha256": _digest(content), **content}
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


def _digest(content: Mapping[str, Any]) -> str:
    """The checksum of the manifest itself, whatever its spacing and order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _commit(folder: Path, files: dict[str, bytes]) -> None:
    """Put every file on the disk, then rename them into place, the last one last."""
    staged = {folder / f"{name}.tmp": data for name, data in files.items()}
    try:
        for path, data in staged.items():
            _write(path, data)
        for path in staged:
            os.replace(path, path.with_suffix(""))
            _sync_folder(folder)
    except OSError:
        for path in staged:
            _remove(path)
        raise


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


def _read(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, at most `limit` and one more, and never through a link."""
    try:
        if path.is_symlink() or not os.path.isfile(path):
            state = "is not a plain file" if os.path.exists(path) else "is missing"
            raise CheckpointError(f"{path} {state}: the checkpoint is not whole; {_ADVICE}")
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; {_ADVICE}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    """The parsed and checked manifest."""
    raw = _read(path, MANIFEST_LIMIT)
    if len(raw) > MANIFEST_LIMIT:
        raise CheckpointError(f"{path} has more than {MANIFEST_LIMIT} bytes: not a manifest")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is truncated or not JSON ({len(raw)} bytes): {error}; {_ADVICE}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by numtape; give a checkpoint's folder")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has format version {content.get('version')!r} and this numtape reads version "
            f"{VERSION}; load it with the numtape that wrote it"
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
        and content.get("sha256") == _digest({"tensors": tensors, "meta": meta})
    )
    if not sound:
        raise CheckpointError(f"{path} has been altered: its checksum does not match; {_ADVICE}")


def _read_tensors(path: Path, expected: dict[str, Any]) -> bytes:
    size = os.path.getsize(path) if os.path.isfile(path) else expected["bytes"]
    if size != expected["bytes"]:
        raise CheckpointError(
            f"{path} has {size} bytes and its manifest says {expected['bytes']}: truncated or "
            f"replaced; {_ADVICE}"
        )
    tensors = _read(path, size)
    if hashlib.sha256(tensors).hexdigest() != expected["sha256"]:
        raise CheckpointError(
            f"{path} has been altered: its sha256 is not {expected['sha256']}; {_ADVICE}"
        )
    return tensors
