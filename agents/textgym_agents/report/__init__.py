"""What a training run leaves for people to look at: ``report.html`` and ``learning_curve.png``."""

from textgym_agents.report.figure import write_learning_curve
from textgym_agents.report.report import write_report

__all__ = ["write_learning_curve", "write_report"]
