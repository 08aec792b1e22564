"""Whole training steps against every peer, one thread each: `python -m benchmarks`."""
