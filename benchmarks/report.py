"""The page: tables from the raw figures, with what they mean and how they were made."""

import textwrap
from typing import Any

from benchmarks.contestants import EAGER, ENTRIES, FLOOR, NUMTAPE
from benchmarks.models import MODELS
from benchmarks.prose import HEAD, INSTALLED, METHOD, PICTURES
from benchmarks.reading import Figures, table
from benchmarks.targets import rows as target_rows

SHOWN_KERNELS, WIDTH = 8, 100


def page(raw: dict[str, Any]) -> str:
    """The whole of docs/benchmarks.md."""
    figures = Figures(raw)
    parts = [
        HEAD,
        _machine(raw["machine"]),
        METHOD,
        _configurations(figures),
        "## Training: a whole step",
        *(_steps(figures, "train", name) for name in raw["train"]),
        PICTURES,
        "## Inference: the forward pass",
        *(_steps(figures, "infer", name) for name in raw["infer"]),
        *_own_sections(figures),
        INSTALLED,
        _installed(figures),
    ]
    return "\n\n".join(map(_wrapped, parts)) + "\n"


def _wrapped(part: str) -> str:
    """Paragraphs of one line in lines of a page; tables and what is broken already as they are."""
    return part if part[0] in "|#!" or "\n" in part else textwrap.fill(part, WIDTH)


def _own_sections(figures: Figures) -> list[str]:
    """What is said of numtape alone."""
    if NUMTAPE not in figures.contestants():
        return []
    return [
        "## Targets",
        "One thread. A ratio below 1 means that numtape is faster, or takes less.",
        table(("what", "model", "target", "found", ""), target_rows(figures)),
        "### Where the time goes",
        "Milliseconds of a step by cause, then by kernel, from `tape.profile`: each kernel's best "
        "of a few rounds.",
        _causes(figures),
        _kernels(figures),
        "### Compiling",
        "Milliseconds of each phase, once, when a shape is first seen.",
        _phases(figures),
        "By depth, for a training step of a GPT (compiling does not depend on its width):",
        _depth(figures.raw["depth"]),
        "## Memory",
        "Arena: the one block that a tape lives in. Eager: bytes that numtape's eager step takes "
        "at its fullest moment (`tracemalloc`), its batch among them. Torch: bytes of all that "
        "autograd saves for the reverse pass in eager mode, parameters excepted "
        "(`saved_tensors_hooks`). Heap: the most "
        "that a compiled step takes, for a moment, of Python's heap beyond what it held before; "
        "objects: the same without the buffers of fixed size through which NumPy's ufuncs read "
        "transposed arrays and other dtypes.",
        _memory(figures),
        "## Each pass switched off alone",
        "Step time and arena relative to the whole pipeline, in interleaved rounds of one "
        "process. `composites` cannot be left out: nothing else expands composite operations. "
        "Without `flat_parameters` each small parameter is updated by itself, where it was made.",
        _ablation(figures.raw["ablation"]),
    ]


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    load = machine["load at the start"], machine["load at the end"]
    return (
        f"Measured on {machine['date']}: {machine['processor']}, {machine['system']}, Python "
        f"{machine['Python']}, BLAS {machine['BLAS']}; {versions}. **One thread**, every process "
        f"pinned to the same core. Load average {load[0]:.1f} at the start, {load[1]:.1f} at the "
        "end."
    )


def _configurations(figures: Figures) -> str:
    rows = [(ENTRIES[n].title, ENTRIES[n].configuration) for n in figures.contestants()]
    return table(("contestant", "configuration"), rows)


def _steps(figures: Figures, mode: str, model: str) -> str:
    """One model: a row for each contestant."""
    head = (
        "",
        "median ms",
        "min ms",
        "/ floor",
        "/ best peer",
        "numtape /",
        "first step s",
        "RSS MB",
    )
    rows = []
    for name in (*figures.contestants(), FLOOR):
        if not figures.has(mode, model, name):
            continue
        report = figures.report(mode, model, name)
        floor = figures.ratio(mode, model, name, FLOOR)
        peer = figures.ratio(mode, model, name, figures.best_peer(mode, model))
        faster = figures.ratio(mode, model, NUMTAPE, name)
        alone = name == FLOOR
        rows.append(
            (
                "the floor" if alone else ENTRIES[name].title,
                *(f"{v:.3g}" for v in (figures.median(mode, model, name), min(report["ms"]))),
                *("" if v is None else f"{v:.2f}" for v in (floor, peer, faster)),
                "" if alone else f"{figures.first(mode, model, name):.2f}",
                "" if alone else f"{report['peak'] / 1e6:.0f}",
            )
        )
    found = {n for n in figures.contestants() if figures.has(mode, model, n)}
    absent = [ENTRIES[n].title for n in figures.contestants() if n not in found]
    note = f"\n\nNot for this model: {', '.join(absent)}." if absent else ""
    cold = figures.starts(mode, model, "torch_compile")
    if len(cold) > 1:
        note += (
            f"\n\ntorch.compile's first step took {cold[0]:.1f} s at first and {cold[-1]:.1f} s "
            "in a new process that found its cache on disk."
        )
    return f"### {model}: {MODELS[model]}\n\n{table(head, rows)}{note}"


def _causes(figures: Figures) -> str:
    """Milliseconds by cause, a row for each model."""
    found = {m: figures.report("train", m, NUMTAPE)["causes"] for m in figures.raw["train"]}
    head = list(dict.fromkeys(cause for causes in found.values() for cause in causes))
    rows = []
    for model, causes in found.items():
        total = sum(causes.values())
        shares = (causes.get(cause, 0.0) for cause in head)
        rows.append((model, *(f"{v:.3g} ({100 * v / total:.0f} %)" for v in shares)))
    return table(("model", *head), rows)


def _kernels(figures: Figures) -> str:
    """The dearest kernels that are no products of matrices, a row for each model."""
    rows = []
    for model in figures.raw["train"]:
        kernels = figures.report("train", model, NUMTAPE)["kernels"]
        dearest = list(kernels.items())[:SHOWN_KERNELS]
        rows.append((model, "; ".join(f"`{name}` {ms:.3g}" for name, ms in dearest)))
    return table(("model", "kernels apart from products of matrices, ms"), rows)


def _phases(figures: Figures) -> str:
    rows = []
    for model in figures.raw["train"]:
        facts = figures.report("train", model, NUMTAPE)
        phases = facts["phases"]
        numbers = (*phases.values(), sum(phases.values()))
        rows.append((model, str(facts["nodes"]), *(f"{v:.0f}" for v in numbers)))
    return table(("model", "nodes", *phases, "together"), rows)


def _depth(depths: list[dict[str, Any]]) -> str:
    rows = []
    for found in depths:
        layers, nodes, *phases = found.values()
        each = sum(phases) / layers
        rows.append(
            (str(layers), str(nodes), *(f"{v:.0f}" for v in (*phases, sum(phases))), f"{each:.1f}")
        )
    names = [k for k in depths[0] if k not in ("layers", "nodes")]
    return table(("layers", "nodes", *names, "together", "a layer"), rows)


def _memory(figures: Figures) -> str:
    rows = []
    for model in figures.raw["train"]:
        facts = figures.report("train", model, NUMTAPE)
        eager = figures.fact("train", model, EAGER, "heap")
        torch = figures.fact("train", model, "torch_eager", "activations")
        arena = facts["arena"]
        rows.append(
            (
                model,
                f"{arena / 1e6:.2f}",
                "" if eager is None else f"{eager / 1e6:.2f}",
                "" if eager is None else f"{arena / eager:.2f}",
                "" if torch is None else f"{torch / 1e6:.2f}",
                "" if torch is None else f"{arena / torch:.2f}",
                f"{facts['heap'] / 1e3:.1f}",
                f"{facts['heap without buffers'] / 1e3:.1f}",
            )
        )
    head = ("model", "arena MB", "eager MB", "ratio", "torch MB", "ratio", "heap kB", "objects kB")
    return table(head, rows)


def _ablation(found: dict[str, Any]) -> str:
    passes = list(dict.fromkeys(n for a in found.values() for n in a["ms"] if n != "step"))
    rows = []
    for name in passes:
        cells = []
        for report in found.values():
            time = Figures.middle(report["ms"][name]) / Figures.middle(report["ms"]["step"])
            arenas = report["arenas"]
            cells += [f"{time:.2f}", f"{arenas[name] / arenas['step']:.2f}"]
        rows.append((f"`{name.removeprefix('without_')}`", *cells))
    head = ("without", *(h for model in found for h in (f"{model}: time", "arena")))
    return table(head, rows)


def _installed(figures: Figures) -> str:
    rows = []
    for name, size in figures.raw["sizes"].items():
        imports = figures.imports(name)
        took = f"{Figures.middle(imports):.0f}" if imports else ""
        numbers = f"{size['alone']:.1f}", f"{size['all']:.0f}", str(size["packages"])
        rows.append((name, *numbers, took))
    return table(("package", "alone MB", "with all it requires MB", "packages", "import ms"), rows)
