"""numtape, compiled with `exact=True`: the same bits as eager mode."""

from benchmarks.contestants import numtape_compiled

LIBRARY = "numtape"


class Contestant(numtape_compiled.Contestant):
    exact = True
