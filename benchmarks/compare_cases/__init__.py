"""The comparisons that `benchmarks/compare.py` runs: one process a side, started by `rows.py`, taking turns (`pairing.py`)."""
