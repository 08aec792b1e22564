"""Checks of the compiler itself, for who asks: every pass and plan against the reference.

`reference` runs a graph node by node, `compare` says when results agree, `reduction` makes a
graph that shows a mistake small, `script` writes it out, and `validation` brings them together.
"""
