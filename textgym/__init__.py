"""textgym: text generation as reinforcement learning, as Gymnasium environments.

Importing it registers the environments, so that ``gym.make("TextGen-Sentiment-v0")`` works.
"""

from textgym.core import Completion, Example, TextGymError
from textgym.registration import register_all
from textgym.tasks import TASKS, Task, make_task
from textgym.tokenization import TextTokenizer, load_tokenizer

__version__ = "0.1.0"
__all__ = ["TASKS", "Completion", "Example", "Task", "TextGymError", "TextTokenizer", "load_tokenizer", "make_task"]

register_all()
