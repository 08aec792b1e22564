"""Files that want to do harm, and what reading them comes to: a typed error, or what they hold.

    python tests/hostile.py 2000

Each kind of file that numtape reads is spoilt that many times. Whatever is done, reading takes
under a second, at most twice the memory of the file and the allowance of its kind, opens nothing
outside its folder, and gives what an independent reader gives if it gives anything.
"""

import gzip
import json
import os
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from runs import pair_options, silent, text_options, trained
from spoiling import spoil, spoil_values

from numtape import nn
from numtape.training import checkpoint, stored
from numtape.training.data import read_text
from numtape.training.errors import CheckpointError, DataError
from numtape.training.folder import load_model, resume_run, save_run
from numtape.training.tokens import BPETokenizer, tokenizer_from_dict

TYPED = (CheckpointError, DataError)
SECONDS, KB, JSON = 1.0, 2**10, 8
WORDS = ["to be or not to be, that is the question", "ein Mann schläft im grünen Gras 😀"]
Random = random.Random


# ---- the kinds of files -------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """`place`: the file, or the folder of files. `spoil` writes it anew; `read` reads it;
    `check` compares what that gave with what another reader gives.

    `free`: bytes that reading may take beside `times` those of the file: objects, models, tables.
    `text`: the bytes of JSON where they may be most of the file, and JSON its growth in reading.
    """

    place: Path
    spoil: Callable[[Random], None]
    read: Callable[[], Any]
    check: Callable[[Any], None]
    free: int
    typed: tuple[type[BaseException], ...] = TYPED
    times: int = 2
    text: Callable[[], int] = lambda: 0


def kinds(base: Path) -> dict[str, Kind]:
    """A sound file of each kind below `base`, with the ways of spoiling it."""
    text, packed = base / "text.txt", base / "text.gz"
    text.write_text("\n".join(WORDS * 400))
    packed.write_bytes(gzip.compress(text.read_bytes()))
    arrays = {f"a{i}": np.arange(i * 9000.0).astype(d) for i, d in enumerate("?bHifd")}
    checkpoint.save(base / "arrays", arrays, {"step": 1, "words": WORDS})
    return {
        "text": _text_kind(text),
        "gzip": _gzip_kind(packed),
        "state": _state_kind(base / "state"),
        "tensors": _tensors_kind(base / "arrays"),
        "manifest": _manifest_kind(base / "arrays"),
        "run (GPT)": _run_kind(base / "gpt", text_options(_short(base))),
        "run (pairs)": _run_kind(base / "pairs", pair_options((_short(base),) * 2)),
        "tokenizer": _tokenizer_kind(base / "bpe.json"),
    }


def _text_kind(path: Path) -> Kind:
    sound = path.read_bytes()

    def change(rng: Random) -> None:
        path.write_bytes(spoil(sound, rng))

    def check(text: str) -> None:
        assert text == plain(path.read_bytes())

    # One character beyond U+FFFF makes Python hold all of them in four bytes each, beside the two
    # and the one that they took when it was met.
    return Kind(path, change, lambda: read_text(path), check, 64 * KB, times=9)


def plain(raw: bytes) -> str:
    return raw.decode().removeprefix("\ufeff").replace("\r\n", "\n")


def _gzip_kind(path: Path) -> Kind:
    sound = path.read_bytes()
    bomb = gzip.compress(bytes(2**26))

    def change(rng: Random) -> None:
        inner = gzip.compress(spoil(gzip.decompress(sound), rng), rng.randrange(10))
        whole = rng.choice((sound, inner, sound + inner, bomb))
        path.write_bytes(whole if whole is bomb else spoil(whole, rng))

    def check(text: str) -> None:
        assert text == plain(gzip.decompress(path.read_bytes()))

    # A bomb is noticed at 16 MiB, or at a hundred times the file, in a buffer that grows by steps.
    return Kind(path, change, lambda: read_text(path), check, 24 * 2**20, times=150)


def _state_kind(path: Path) -> Kind:
    layer = nn.Linear(64, 64)
    sound = safetensors.numpy.save(layer.state_dict())

    def change(rng: Random) -> None:
        path.write_bytes(spoil(sound, rng))

    def read() -> Any:
        arrays = stored.unpack(bytearray(path.read_bytes()))
        layer.load_state_dict(arrays)
        return arrays

    def check(arrays: checkpoint.Arrays) -> None:
        _same_arrays(arrays, safetensors.numpy.load(path.read_bytes()))
        _same_arrays(arrays, layer.state_dict())

    return Kind(path, change, read, check, 512 * KB, (ValueError,))


def _same_arrays(one: checkpoint.Arrays, other: checkpoint.Arrays) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype and array.shape == other[name].shape
        assert array.tobytes() == other[name].tobytes()


def _tensors_kind(folder: Path) -> Kind:
    """Half of the files with checksums that fit, as only a person would make them."""
    manifest = (folder / checkpoint.MANIFEST).read_bytes()
    path = next(folder.glob("tensors-*"))
    sound = path.read_bytes()

    def change(rng: Random) -> None:
        for other in folder.glob("tensors-*"):
            other.unlink()
        data = spoil(sound, rng)
        (folder / checkpoint.MANIFEST).write_bytes(manifest)
        path.write_bytes(data)
        if rng.random() < 0.5:
            digest = checkpoint.hashlib.sha256(data).hexdigest()
            path.rename(folder / f"tensors-{digest[:16]}.safetensors")
            rewrite(folder, tensors={"sha256": digest, "bytes": len(data)})

    def check(found: Any) -> None:
        _same_arrays(found[0], safetensors.numpy.load(next(folder.glob("tensors-*")).read_bytes()))

    def text() -> int:
        data = next(folder.glob("tensors-*")).read_bytes()
        size = int.from_bytes(data[:8], "little")
        return size if data[7 + size : 8 + size] in (b"}", b" ") else 0

    read = lambda: checkpoint.load(folder)
    return Kind(folder, change, read, check, 512 * KB, text=text)


def rewrite(folder: Path, **parts: Any) -> None:
    """Other parts of a manifest, with a checksum that fits."""
    path = folder / checkpoint.MANIFEST
    content = json.loads(path.read_text()) | parts
    inner = {"tensors": content["tensors"], "meta": content["meta"]}
    path.write_text(json.dumps(content | {"sha256": checkpoint._digest(path, inner)}))


def _manifest_kind(folder: Path) -> Kind:
    path, tensors = folder / checkpoint.MANIFEST, next(folder.glob("tensors-*"))
    sound, data = path.read_bytes(), tensors.read_bytes()
    arrays, meta = checkpoint.load(folder)

    def change(rng: Random) -> None:
        tensors.write_bytes(data)
        if rng.random() < 0.5:
            path.write_bytes(spoil(sound, rng))
        else:
            path.write_text(json.dumps(spoil_values(json.loads(sound), rng)))

    def check(found: Any) -> None:
        _same_arrays(found[0], arrays)
        assert found[1] == meta

    # The JSON of 50,000 brackets becomes as many lists before it is refused.
    return Kind(folder, change, lambda: checkpoint.load(folder), check, 8 * 2**20)


def _run_kind(folder: Path, options: Any) -> Kind:
    """Settings, tokenizers and counts of a run, with a checksum that fits."""
    save_run(folder, trained(options, 1))
    sound = json.loads((folder / checkpoint.MANIFEST).read_text())["meta"]

    def change(rng: Random) -> None:
        rewrite(folder, meta=spoil_values(sound, rng))

    def read() -> Any:
        # What is trained on lies elsewhere; it is opened, and refused unless it has its checksum.
        with watching(False), suppress(*TYPED):
            resume_run(folder, {}, silent)
        return load_model(folder)

    def check(found: Any) -> None:
        stored_arrays = checkpoint.load(folder)[0]
        for name, array in found[0].state_dict().items():
            assert array.tobytes() == stored_arrays[f"model.{name}"].tobytes()

    return Kind(folder, change, read, check, 40 * 2**20)


def _short(base: Path) -> str:
    path = base / "short.txt"
    path.write_text("to be or not\n" * 60)
    return str(path)


def _tokenizer_kind(path: Path) -> Kind:
    sound = BPETokenizer.train(WORDS * 20, 300).to_dict()
    raw = json.dumps(sound).encode()

    def change(rng: Random) -> None:
        new = json.dumps(spoil_values(sound, rng)).encode()
        path.write_bytes(new if rng.random() < 0.7 else spoil(raw, rng))

    def check(found: Any) -> None:
        assert found.decode(found.encode(WORDS[1])) == WORDS[1]

    read = lambda: tokenizer_from_dict(stored.parse(path.read_bytes()))
    return Kind(path, change, read, check, 8 * 2**20, (ValueError,))


# ---- reading them -------------------------------------------------------------------------

OPENED: list[str] = []
WATCH = [False]


class watching:
    """Notes what is opened, or does not, in a `with`."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __enter__(self) -> None:
        self.before, WATCH[0] = WATCH[0], self.on

    def __exit__(self, *_: object) -> None:
        WATCH[0] = self.before


def _audit(event: str, arguments: tuple) -> None:
    if event == "open" and WATCH[0] and isinstance(arguments[0], str | bytes):
        OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(_audit)


def try_all(base: Path, times: int, seed: int = 0) -> dict[str, Counter]:
    """Spoil and read each kind so many times; how it ended, the most of seconds and bytes.

    Raises AssertionError, or whatever a reader should not have raised.
    """
    found = {}
    tracemalloc.start()
    try:
        for name, kind in kinds(base).items():
            found[name] = Counter()
            for number in range(times):
                kind.spoil(Random(f"{name} {seed} {number}"))
                _try(base, kind, f"{name}, number {number} of seed {seed}", found[name])
            print(f"{name:12}", dict(found[name]), flush=True)
    finally:
        tracemalloc.stop()
    return found


def _try(base: Path, kind: Kind, label: str, counts: Counter) -> None:
    files = [kind.place] if kind.place.is_file() else kind.place.iterdir()
    size = sum(path.stat().st_size for path in files)
    OPENED.clear()
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    result: Any = None
    try:
        with watching(True):
            result = kind.read()
    except kind.typed as error:
        assert len(str(error)) < 10_000, f"{label}: {len(str(error))} characters of message"
    seconds = time.process_time() - start
    taken = tracemalloc.get_traced_memory()[1] - before
    counts["read" if result is not None else "refused"] += 1
    counts["ms"] = max(counts["ms"], round(1e3 * seconds))
    counts["bytes"] = max(counts["bytes"], taken)
    assert seconds < SECONDS, f"{label} took {seconds:.2f} s"
    assert taken <= kind.times * size + kind.free + JSON * kind.text(), (
        f"{label} took {taken} bytes for files of {size}"
    )
    outside = [p for p in OPENED if not within(p, base)]
    assert not outside, f"{label} opened {outside}"
    if result is not None:
        kind.check(result)


def within(path: str, base: Path) -> bool:
    """Whether a file lies in the folder, or belongs to Python itself."""
    whole = Path(os.path.realpath(path))
    return any(whole.is_relative_to(p) for p in (base.resolve(), sys.prefix, sys.base_prefix))


def main(times: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2**29
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    seed, start = random.SystemRandom().randrange(2**32), time.perf_counter()
    with tempfile.TemporaryDirectory() as base:
        try_all(Path(base), times, seed)
    print(f"seed {seed}, {time.perf_counter() - start:.0f} s: nothing but typed errors")


if __name__ == "__main__":
    main(int(sys.argv[1]))
