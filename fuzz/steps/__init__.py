"""The lines that random programs are made of: each function writes one expression."""

from fuzz.steps import entries, layers, shapes

STEPS = (*entries.step, *shapes.step, *layers.step)
