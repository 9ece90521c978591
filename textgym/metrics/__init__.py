"""Metrics: numbers about completions, about texts and about scores. A metric is a reward too."""

from textgym.metrics.base import MeanMetric, Metric, MetricError, SumMetric
from textgym.metrics.diversity import distinct_n
from textgym.metrics.intervals import bootstrap_interval

__all__ = ["MeanMetric", "Metric", "MetricError", "SumMetric", "bootstrap_interval", "distinct_n"]
