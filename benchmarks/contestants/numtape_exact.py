"""numtape, compiled with `exact=True`: the same bits as eager mode."""

from benchmarks.contestants import numtape_compiled


class Contestant(numtape_compiled.Contestant):
    exact = True
