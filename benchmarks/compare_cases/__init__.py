"""The comparisons that `benchmarks/compare.py` runs: one process a side, started by `harness.py`, taking turns."""
