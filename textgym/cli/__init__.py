"""The command ``textgym``. Importing it imports no torch; commands that need it import it when they run."""

from textgym.cli.app import app, main

__all__ = ["app", "main"]
