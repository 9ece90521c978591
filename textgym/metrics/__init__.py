"""Metrics: numbers about completions, about texts and about scores. A metric is a reward too."""

from textgym.metrics.answers import Accuracy, ExactMatch, TokenF1, normalize_answer
from textgym.metrics.base import MeanMetric, Metric, MetricError, SumMetric
from textgym.metrics.bert_score import BERTScore
from textgym.metrics.bleu import BLEU
from textgym.metrics.chrf import CHRF
from textgym.metrics.cider import CIDEr
from textgym.metrics.coverage import Coverage
from textgym.metrics.diversity import MSTTR, DistinctN, Entropy, SelfBLEU, distinct_n
from textgym.metrics.entities import EntityF1, parse_entities
from textgym.metrics.fluency import Fluency
from textgym.metrics.format import Format
from textgym.metrics.intervals import bootstrap_interval, interquartile_mean, stratified_interval
from textgym.metrics.language_model import LMScore, Perplexity
from textgym.metrics.meteor import METEOR
from textgym.metrics.parent import PARENT
from textgym.metrics.pronunciation import Metre, Rhyme
from textgym.metrics.readability import Readability
from textgym.metrics.rouge import ROUGE
from textgym.metrics.similarity import SemanticSimilarity
from textgym.metrics.table import MetricRow, MetricTable, evaluate
from textgym.metrics.ter import TER
from textgym.metrics.toxicity import Toxicity

__all__ = [
    "BLEU",
    "CHRF",
    "METEOR",
    "MSTTR",
    "PARENT",
    "ROUGE",
    "TER",
    "Accuracy",
    "BERTScore",
    "CIDEr",
    "Coverage",
    "DistinctN",
    "EntityF1",
    "Entropy",
    "ExactMatch",
    "Fluency",
    "Format",
    "LMScore",
    "MeanMetric",
    "Metre",
    "Metric",
    "MetricError",
    "MetricRow",
    "MetricTable",
    "Perplexity",
    "Readability",
    "Rhyme",
    "SelfBLEU",
    "SemanticSimilarity",
    "SumMetric",
    "TokenF1",
    "Toxicity",
    "bootstrap_interval",
    "distinct_n",
    "evaluate",
    "interquartile_mean",
    "normalize_answer",
    "parse_entities",
    "stratified_interval",
]
