"""Pictures of graphs, reports of passes, and maps of memory.

`draw.draw` writes a picture to a file, `dot.to_dot` gives it as Graphviz text; `report.pass_table`
tells what the passes did, `memory_map.memory_map_svg` shows an arena over time.
"""
