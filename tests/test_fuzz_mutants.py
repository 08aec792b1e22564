"""Mistakes put in on purpose: the list is in step with the code."""

import pytest

from fuzz.mutants import MUTANTS, TESTS
from fuzz.mutation import ROOT, applied


@pytest.mark.parametrize("mutant", MUTANTS, ids=range(len(MUTANTS)))
def test_a_mutant_has_its_place_and_is_a_program(mutant):
    path = ROOT / mutant.file
    compile(applied(path.read_text(), mutant), mutant.file, "exec")


def test_a_place_that_is_gone_is_an_error():
    with pytest.raises(ValueError, match=r"arena\.py has 0 times"):
        applied("", next(m for m in MUTANTS if m.file.endswith("arena.py")))


def test_the_tests_of_mutants_exist():
    names = {name for names in TESTS.values() for name in names}
    assert [n for n in names if not (ROOT / "tests" / f"{n}.py").exists()] == []
