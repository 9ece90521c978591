"""Other views of the same Markov decision process, and a curriculum over its levels.

``CurriculumWrapper``, ``HistoryWrapper`` and ``DenseRewardWrapper`` take single and vector environments; given a vector
environment, they make the variant whose name begins with ``Vector``.
"""

from textgym.wrappers.curriculum import CurriculumWrapper, VectorCurriculumWrapper
from textgym.wrappers.dense_reward import DenseRewardWrapper, VectorDenseRewardWrapper
from textgym.wrappers.history import HistoryWrapper, VectorHistoryWrapper
from textgym.wrappers.whole_completion import WholeCompletionWrapper

__all__ = [
    "CurriculumWrapper",
    "DenseRewardWrapper",
    "HistoryWrapper",
    "VectorCurriculumWrapper",
    "VectorDenseRewardWrapper",
    "VectorHistoryWrapper",
    "WholeCompletionWrapper",
]
