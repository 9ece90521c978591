"""Prompts from data sets: files, saved data sets and the Hub, their columns, and presets for well-known ones."""

from textgym.data.presets import PRESETS, Preset
from textgym.data.records import PromptError

__all__ = ["PRESETS", "Preset", "PromptError"]
