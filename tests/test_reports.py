"""Tables of passes and maps of memory."""

from dataclasses import replace
from xml.etree import ElementTree

from test_inspect import training_step

from numtape.inspect.memory_map import fullest, memory_map_svg
from numtape.inspect.report import PassReport, pass_table
from numtape.passes import PassRecord
from numtape.runtime.arena import Slot


def test_pass_table():
    records = [
        PassRecord("dead_nodes", True, 1200, 1000, 4096, 2048, 1.25),
        PassRecord("sums", False, 1000, 1000, 2048, 2048, 0.5),
    ]
    lines = [" ".join(line.split()) for line in pass_table(records).splitlines()]
    assert lines[0] == "pass exact nodes bytes ms"
    assert lines[2] == "dead_nodes yes 1,200 → 1,000 -16.7 % 4,096 → 2,048 -50.0 % 1.25"
    assert lines[3] == "sums no 1,000 → 1,000 2,048 → 2,048 0.50"
    assert lines[-1].split()[:5] == ["total", "no", "1,200", "→", "1,000"]
    assert lines[-1].endswith("1.75")
    assert pass_table([]) == "no passes"


SLOTS = [
    Slot("%1", 0, 1 << 20, 0, 4),
    Slot("%2", 1 << 20, 1 << 19, 1, 2),
    Slot("%3", 1 << 20, 1 << 19, 3, 4),
]


def test_memory_map_is_standalone_svg(tmp_path):
    text = memory_map_svg(SLOTS, tmp_path / "map.svg", title="a < b")
    assert (tmp_path / "map.svg").read_text(encoding="utf-8") == text
    root = ElementTree.fromstring(text)
    rectangles = [e for e in root.iter() if e.tag.endswith("rect") and len(e)]
    assert len(rectangles) == len(SLOTS)
    assert "share a peak of 1.5 MiB" in text
    assert "address, MiB" in text


def test_memory_map_colours_by_part_where_it_knows_the_graph():
    graph = training_step()
    text = memory_map_svg([Slot("%5", 0, 64, 0, 1)], graph=graph)
    assert "forward" in text
    assert "test_inspect.py" in text
    assert "address, KiB" in text


def test_memory_map_of_nothing():
    ElementTree.fromstring(memory_map_svg([]))


def test_fullest_instruction():
    assert fullest(SLOTS) == (1, 3 << 19)


def test_the_total_of_two_measures_has_no_percentage():
    one = PassRecord("one", True, 9, 8, 100, 80, 1.0)
    two, block = replace(one, bytes_before=80), replace(one, name="block")
    assert "100 → 80  -20.0 %" in str(PassReport((one, two))).splitlines()[-1]
    assert "→ 80" not in str(PassReport((one, block))).splitlines()[-1]
