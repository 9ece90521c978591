"""Environments: one episode (``TextGenEnv``) or many side by side (``TextGenVectorEnv``) of any task."""

from textgym.envs.episodes import InvalidActionError
from textgym.envs.text_gen import TextGenEnv
from textgym.envs.vector import TextGenVectorEnv

__all__ = ["InvalidActionError", "TextGenEnv", "TextGenVectorEnv"]
