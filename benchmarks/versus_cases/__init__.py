"""What `benchmarks/versus_trl.py` runs: the two sides, each in a process of its own, and what is made of their results."""
