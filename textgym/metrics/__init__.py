"""Numbers about texts and about scores, in plain numpy."""

from textgym.metrics.diversity import distinct_n
from textgym.metrics.intervals import bootstrap_interval

__all__ = ["bootstrap_interval", "distinct_n"]
