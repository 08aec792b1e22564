"""The benchmark harness without peers: it measures, compares and writes its page."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks import models, rounds
from benchmarks.contestants import EAGER, EXACT, FLOOR, HAND, NUMTAPE
from benchmarks.contestants.ablation import Contestant as Ablation
from benchmarks.contestants.floor import Floor
from benchmarks.contestants.numpy_by_hand import Contestant as ByHand
from benchmarks.contestants.numtape_compiled import Contestant as Compiled
from benchmarks.models import Model

ROOT = Path(benchmarks.__file__).parent.parent
SMALL = Model("small", "gpt", 1, 16, 2, 8, 2, 11)
KINDS = (
    SMALL,
    Model("small-mlp", "mlp", 3, 8, 1, 1, 4, 5),
    Model("small-translation", "translation", 2, 16, 2, 6, 3, 13),
)
OWN = (NUMTAPE, EXACT, EAGER, HAND)


@pytest.mark.parametrize("model", KINDS, ids=lambda m: m.kind)
def test_the_step_by_hand_is_the_same_step(model):
    hand, compiled = ByHand(model, True), Compiled(model, True)
    for _ in range(5):
        assert hand.number(hand.step()) == pytest.approx(
            compiled.number(compiled.step()), rel=1e-5
        )
    for name, value in compiled.module.state_dict().items():
        if name.endswith(
            "bias"
        ):  # those of keys have no gradient but noise, which AdamW scales up
            continue
        np.testing.assert_allclose(hand.store.values[name], value, atol=2e-4)


@pytest.mark.parametrize("model", KINDS, ids=lambda m: m.kind)
def test_the_forward_pass_by_hand_is_the_same(model):
    hand, compiled = ByHand(model, False), Compiled(model, False)
    expected = compiled.step().numpy()
    np.testing.assert_allclose(hand.step().reshape(expected.shape), expected, atol=1e-5)


def test_the_floor_is_the_products_of_matrices():
    x, y = np.ones((4, 6), np.float32), np.ones((6, 5), np.float32)
    out, column = np.empty((4, 5), np.float32), np.empty((4, 1), np.float32)

    def step():
        np.matmul(x, y, out=out)
        np.matmul(x, y[:, :1], out=column)  # a sum of rows
        np.matmul(y.T, x.T, out=out.T)

    floor = Floor(step)
    shapes = [tuple(a.shape for a in call) for call in floor.calls]
    assert shapes == [((4, 6), (6, 5), (4, 5)), ((5, 6), (6, 4), (5, 4))]
    assert [a.strides for a in floor.calls[1]] == [y.T.strides, x.T.strides, out.T.strides]
    floor()
    np.testing.assert_array_equal(out, 6.0)  # the step's own arrays are left alone


def test_costs_are_told_apart():
    contestant = Compiled(SMALL, True)
    contestant.step()
    facts = contestant.facts()
    assert {"matrix products", "optimizer"} <= facts["causes"].keys()
    assert {"np.exp", "np.multiply"} <= facts["kernels"].keys()
    assert list(facts["kernels"].values()) == sorted(facts["kernels"].values(), reverse=True)
    assert facts["heap without buffers"] <= facts["heap"]


def test_every_pass_but_one_can_be_left_out():
    contestant = Ablation(SMALL, True)
    contestant.step()
    names = contestant.prepare()
    assert set(contestant.failed) == {"composites"}
    assert "without_fusion" in names
    apart = contestant.variants.pop("without_flat_parameters").tapes[0].plan
    assert contestant.whole.tapes[0].plan.joins
    assert not apart.joins
    assert "without_flat_parameters" in names
    sizes = {name: len(c.tapes[0].passes) for name, c in contestant.variants.items()}
    assert len(set(sizes.values())) == 1
    assert sizes["without_fusion"] == len(contestant.whole.tapes[0].passes) - 1


def test_different_losses_stop_the_run():
    reports = {"a": {"numbers": [2.0, 1.0]}, "b": {"numbers": [2.0, 1.0]}}
    rounds.compare(reports)
    with pytest.raises(RuntimeError, match=r"step 1 of c gives 1\.1, of others 1\.0"):
        rounds.compare(reports | {"c": {"numbers": [2.0, 1.1]}})


def test_parameters_are_those_of_the_modules():
    for model in KINDS:
        module = Compiled(model, True).module
        assert {n: t.shape for n, t in module.state_dict().items()} == models.shapes(model)


def test_a_short_run_writes_the_page(tmp_path):
    raw, page = tmp_path / "raw.json", tmp_path / "page.md"
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--models",
        "mlp",
        "--depths",
        "1",
        "2",
    ]
    command += ["--contestants", *OWN, "--raw", str(raw), "--page", str(page)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    found = json.loads(raw.read_text())
    assert found["train"]["mlp"].keys() == {*OWN, FLOOR}
    assert all(len(report["ms"]) >= 3 for report in found["train"]["mlp"].values())
    text = page.read_text()
    for part in ("| numtape |", "| the floor |", "## Targets", "pictures/bench-time.svg"):
        assert part in text
    assert len(list((tmp_path / "pictures").glob("bench-*.svg"))) == 3
