"""Completions to learn from that the policy did not write: references, a task's own answers, windows of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textgym.core import Example, TextGymError, expected
from textgym.envs.episodes import Episodes
from textgym.prompts import FixedPrompts
from textgym_agents.rollouts.buffers import Sequences

if TYPE_CHECKING:
    from textgym.envs.episodes import Setting

TARGETS = ("auto", "references", "oracle")


def wants_references(setting: Setting, targets: str) -> bool:
    """Whether demonstrations are references rather than the task's own answers; ``auto``: where prompts are a user's own.

    Raises:
        ValueError: ``targets`` is none of :data:`TARGETS`, or the prompts have no references where they are wanted.
    """
    if targets not in TARGETS:
        raise ValueError(expected("targets", targets, f"one of {TARGETS}"))
    prompts = setting.prompts
    theirs = isinstance(prompts, FixedPrompts) and any(e.references for e in prompts.examples)
    if targets == "references":
        first = prompts.examples[0] if isinstance(prompts, FixedPrompts) else prompts.draw(np.random.default_rng(0))
        if not theirs and not first.references:
            raise ValueError(
                expected("targets", targets, f"'oracle': the prompts of {setting.task.id} have no references")
            )
    return targets == "references" or (targets == "auto" and theirs)


def demonstrations(
    setting: Setting, examples: Sequence[Example], references: bool, rng: np.random.Generator
) -> Sequences:
    """One good completion of each prompt, which ends with the end token unless the budget is spent before.

    Where somebody replies, the replies are in it, and are not marked as the policy's.

    Args:
        setting: Of the environment.
        examples: The prompts.
        references: Whether to take one of each example's references by chance, rather than the task's own answer; examples
            without any are answered by the task.
        rng: Draws among them.
    """
    task, tokenizer = setting.task, setting.tokenizer
    texts = []
    for example in examples:
        if references and example.references:
            text = example.references[int(rng.integers(len(example.references)))].strip()
            texts.append(text if example.prompt[-1:].isspace() else f" {text}")
        else:
            texts.append(task.oracle(example))
    ends = [tokenizer.eos_token_id] * (setting.min_new_tokens + 1)
    written = []
    for ids in tokenizer.encode_batch(texts):
        written.append([*ids, *ends[: max(1, len(ends) - len(ids))]][: setting.max_new_tokens])
    if task.turn_end is None:
        return Sequences.of(setting.encode_prompts(examples), written, None)
    rows, chosen = _with_replies(setting, examples, written)
    return Sequences.of(setting.encode_prompts(examples), rows, None, chosen)


def _with_replies(
    setting: Setting, examples: Sequence[Example], written: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[list[bool]]]:
    """Plays given tokens; returns all tokens after each prompt and which of them were given."""
    episodes, going = Episodes(setting, len(examples)), list(range(len(examples)))
    episodes.begin(np.array(going), examples)
    for step in range(max(map(len, written))):
        going = [slot for slot in going if step < len(written[slot])]
        if not going:
            break
        _, ended = episodes.step(np.array(going), np.array([written[slot][step] for slot in going]))
        going = [slot for slot, over in zip(going, ended, strict=True) if not over]
    last = episodes.observe()
    found = [
        (ids[len(ids) - n :].tolist(), own[len(own) - n :].astype(bool).tolist())
        for ids, own, n in zip(last["input_ids"], last["completion_mask"], episodes.appended.tolist(), strict=True)
    ]
    # what somebody said behind the last given token teaches nothing
    cut = [max(i for i, own in enumerate(chosen) if own) + 1 for _, chosen in found]
    return [ids[:n] for (ids, _), n in zip(found, cut, strict=True)], [
        own[:n] for (_, own), n in zip(found, cut, strict=True)
    ]


class TextWindows:
    """Windows of a text file, for pre-training: all its tokens one after the other, cut at chance.

    Lines of only white space part documents; the end token stands between them.
    """

    def __init__(self, path: str | Path, setting: Setting) -> None:
        """Reads and encodes the file.

        Args:
            path: UTF-8 text.
            setting: Of the environment: its tokenizer, and the length of a window.

        Raises:
            TextGymError: No such file, not text, or too short for a window.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TextGymError(f"Could not read {str(path)!r} as a text file: {error}") from error
        end = setting.tokenizer.eos_token_id
        documents = [part for part in _documents(text) if part.strip()]
        self.tokens = np.array([end, *(t for ids in setting.tokenizer.encode_batch(documents) for t in (*ids, end))])
        self.length = setting.width
        if len(self.tokens) < 2:
            raise TextGymError(f"Expected text to learn from in {str(path)!r}, actual: nothing but white space")

    def draw(self, n: int, rng: np.random.Generator) -> Sequences:
        """``n`` windows of as many tokens as an observation has; the first of each is given, the others are learned."""
        length = min(self.length, len(self.tokens))
        starts = rng.integers(len(self.tokens) - length + 1, size=n)
        rows = [self.tokens[s : s + length].tolist() for s in starts]
        return Sequences.of([row[:1] for row in rows], [row[1:] for row in rows], None)


def _documents(text: str) -> list[str]:
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            parts[-1].append(line)
        else:
            parts.append([])
    return ["\n".join(part) for part in parts]
