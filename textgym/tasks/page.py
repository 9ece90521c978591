"""The documentation page of a task: its docstring, and what is the same in every task."""

from __future__ import annotations

import inspect
import re

from textgym.tasks.base import Task

HEADINGS = (
    "Description", "Action Space", "Observation Space", "Starting State", "Rewards", "Episode End", "Information",
    "Arguments", "Version History",
)  # fmt: skip
"""Of every page, in this order."""

_SHARED = {
    "Action Space": """`Discrete(V)`: the next token of the tokenizer's vocabulary. `action_masks()` tells which are allowed:
it forbids the padding token, and the end token before `min_new_tokens`.""",
    "Observation Space": """`Dict`, each entry of shape `(L,)`, left-padded:

* `input_ids`: tokens of prompt and completion so far;
* `attention_mask`: 1 where there is a token, 0 where there is padding;
* `completion_mask`: 1 where the token was written by the policy.""",
    "Episode End": """Terminates with the end token (`finish_reason` `"stop"`) or when the token budget is spent
(`"length"`). Never truncates.""",
}
_TURNS = """

The policy gives the word to the other speaker with the token {token!r}; what is said in reply follows within the same
step, with a `completion_mask` of 0. The budget counts the policy's own tokens."""


def page_of(task: type[Task]) -> str:
    """Title and sections of the page of ``task``, in Markdown.

    Raises:
        ValueError: The docstring lacks one of the sections that are not the same in every task.
    """
    title, *parts = re.split(r"^## (.+)$", inspect.getdoc(task) or "", flags=re.M)
    own = {heading: text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}
    sections = {**_SHARED, **own}
    if task.turn_end is not None:
        sections["Episode End"] += _TURNS.format(token=task.turn_end)
    missing = [heading for heading in HEADINGS if heading not in sections]
    if missing or set(own) - set(HEADINGS):
        raise ValueError(
            f"Expected the docstring of {task.__name__} to have the sections {HEADINGS}, missing: {missing}"
        )
    return "\n\n".join([title.strip(), *(f"## {heading}\n\n{sections[heading]}" for heading in HEADINGS)])
