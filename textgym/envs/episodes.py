"""The Markov decision process itself, for ``n`` episodes side by side, without Gymnasium around it.

Both the single and the vector environment are thin shells around :class:`Episodes`, which is why they agree token for token.

Tokens of slot ``i`` lie in one row of a buffer, the prompt ending at column ``width``; what is appended goes to its right. An
observation is the window of ``width`` columns that ends at the newest token, so a step writes one number and moves no text.
The masks are buffers of the same shape, right of the prompt filled in beforehand: no window shows what is not yet written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from textgym.core import SPLITS, Completion, Example, FinishReason, TextGymError, expected, whole_number
from textgym.envs.scoring import Columns
from textgym.prompts import FixedPrompts, PromptError, Prompts, check_references, known_difficulty, load_prompts
from textgym.rewards import Reward, as_reward, checked_scores
from textgym.tasks import Task, make_task
from textgym.tokenization import TextTokenizer, load_tokenizer

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Observation = dict[str, npt.NDArray[Any]]
_FINISH_REASONS: tuple[FinishReason | None, ...] = (None, "stop", "length")


class InvalidActionError(TextGymError, ValueError):
    """An action is not a token of the vocabulary."""


@dataclass(frozen=True)
class Setting:
    """Everything that the episodes of an environment have in common; made by :func:`make_setting`.

    Attributes:
        width: Length ``L`` of an observation: the most tokens that prompt, completion and replies can have together.
    """

    task: Task
    prompts: Prompts
    tokenizer: TextTokenizer
    reward: Reward
    max_prompt_tokens: int
    max_new_tokens: int
    min_new_tokens: int
    always_allowed: BoolArray  # (V,), the end token not yet considered
    ends_turn: BoolArray  # (V,)
    own_reward: bool = True  # whether `reward` is the task's own
    known_prompts: Mapping[str, npt.NDArray[np.int32]] = field(default_factory=dict)  # token ids of fixed prompts

    @property
    def width(self) -> int:
        """See the class."""
        return self.max_prompt_tokens + self.max_new_tokens + self.task.max_reply_tokens

    def is_success(self, completion: Completion) -> bool | None:
        """Whether a finished completion solves the task; ``None`` where it has no such notion, or another reward."""
        success = self.task.is_success(completion) if self.own_reward else None
        return None if success is None else bool(success)

    def score(self, completions: Sequence[Completion]) -> tuple[npt.NDArray[np.float32], Columns]:
        """Final rewards of ``m`` ended episodes, shape ``(m,)``, and their infos (lists of ``m``), scored in one call."""
        rewards, parts = self.reward.parts(completions)
        infos: Columns = {
            "prompt": [c.prompt for c in completions],
            "completion": [c.text for c in completions],
            "references": [list(c.references) for c in completions],
            "finish_reason": [c.finish_reason for c in completions],
            "is_success": [self.is_success(c) for c in completions],
        }
        if self.task.turn_end is not None:
            infos["transcript"] = [c.transcript for c in completions]
        for name, scores in parts.items():
            infos[f"reward/{name}"] = np.asarray(scores, dtype=np.float64).tolist()
        return rewards, infos

    def observation_space(self) -> spaces.Dict:
        """``input_ids`` int64 in [0, V); ``attention_mask`` and ``completion_mask`` int8 in {0, 1}; each of shape ``(L,)``."""
        return spaces.Dict(
            {
                "input_ids": spaces.Box(0, self.tokenizer.vocab_size - 1, (self.width,), np.int64),
                "attention_mask": spaces.MultiBinary(self.width),
                "completion_mask": spaces.MultiBinary(self.width),
            }
        )

    def encode_prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """Token ids of the examples' prompts.

        Raises:
            PromptError: A prompt has no token, or more than ``max_prompt_tokens``, or halves of surrogate pairs.
        """
        known = self.known_prompts
        new = list(dict.fromkeys(e.prompt for e in examples if e.prompt not in known))
        for text in new:
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise PromptError(expected("prompt", text, "a text without halves of surrogate pairs"))
        encoded = dict(zip(new, self.tokenizer.encode_batch(new), strict=True))
        for text, ids in encoded.items():
            if not 0 < len(ids) <= self.max_prompt_tokens:
                raise PromptError(
                    f"Expected a prompt of 1 to max_prompt_tokens={self.max_prompt_tokens} tokens, "
                    f"actual: {len(ids)} tokens in {text if len(text) <= 200 else text[:197] + '...'!r}"
                )
        return [known[e.prompt].tolist() if e.prompt in known else encoded[e.prompt] for e in examples]


def make_setting(
    task: str | Task,
    split: str = "train",
    prompts: object = None,
    tokenizer: object = "bundled",
    reward: object = None,
    max_prompt_tokens: int | None = None,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    difficulty: str | None = None,
    dataset: object = None,
) -> Setting:
    """Checks the arguments of an environment and puts them together; see :class:`textgym.envs.TextGenEnv` for them.

    Raises:
        ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
    """
    task = make_task(task)
    if split not in SPLITS:
        raise ValueError(expected("split", split, f"one of {SPLITS}"))
    difficulty = known_difficulty(task, task.default_difficulty if difficulty is None else difficulty)
    most_prompt = whole_number(
        "max_prompt_tokens", task.max_prompt_tokens if max_prompt_tokens is None else max_prompt_tokens, 1
    )
    most_new = whole_number("max_new_tokens", task.max_new_tokens if max_new_tokens is None else max_new_tokens, 1)
    fewest_default = min(task.min_new_tokens, most_new) if min_new_tokens is None else min_new_tokens
    fewest = whole_number("min_new_tokens", fewest_default, 0)
    if fewest > most_new:
        raise ValueError(expected("min_new_tokens", fewest, f"at most max_new_tokens={most_new}"))
    text_tokenizer = load_tokenizer(tokenizer)
    allowed = np.ones(text_tokenizer.vocab_size, dtype=np.bool_)
    if text_tokenizer.pad_token_id != text_tokenizer.eos_token_id:
        allowed[text_tokenizer.pad_token_id] = False
    allowed[_token_ids(text_tokenizer, task.forbidden_words())] = False
    ends_turn = np.zeros(text_tokenizer.vocab_size, dtype=np.bool_)
    if task.turn_end is not None:
        ends_turn[_token_ids(text_tokenizer, (task.turn_end,))] = True
    setting = Setting(
        task=task,
        prompts=load_prompts(prompts, task, split, difficulty, dataset),
        tokenizer=text_tokenizer,
        reward=task.reward() if reward is None else as_reward(reward),
        own_reward=reward is None,
        max_prompt_tokens=most_prompt,
        max_new_tokens=most_new,
        min_new_tokens=fewest,
        always_allowed=allowed,
        ends_turn=ends_turn,
    )
    if isinstance(setting.prompts, FixedPrompts):
        texts = list(setting.prompts.examples)  # a prompt that is too long is reported now, not in a week
        check_references(setting.reward, texts)
        ids = (np.array(found, dtype=np.int32) for found in setting.encode_prompts(texts))
        setting = replace(setting, known_prompts={e.prompt: i for e, i in zip(texts, ids, strict=True)})
    return setting


class Episodes:
    """``n`` episodes side by side. ``slots`` are arrays of indices in ``[0, n)``."""

    def __init__(self, setting: Setting, n: int) -> None:
        """Args: setting: What the episodes have in common. n: How many."""
        self.setting = setting
        width, room = setting.width, setting.max_new_tokens + setting.task.max_reply_tokens
        self._ids = np.full((n, width + room), setting.tokenizer.pad_token_id, dtype=np.int64)
        self._seen = np.ones((n, width + room), dtype=np.int8)  # false left of the prompt
        self._by_policy = np.ones((n, width + room), dtype=np.int8)  # false up to the prompt's end, and in replies
        self._seen[:, :width] = self._by_policy[:, :width] = 0
        self.appended = np.zeros(n, dtype=np.int64)  # tokens after the prompt
        self.written = np.zeros(n, dtype=np.int64)  # ... of these, the policy's own
        self.examples: list[Example] = [Example("")] * n
        self._finish = np.zeros(n, dtype=np.int8)  # indices of _FINISH_REASONS
        self._potentials = np.zeros(n, dtype=np.float32)

    def change(self, **changes: Any) -> Setting:
        """Puts other parts into the setting, for the episodes that begin from now on; returns it."""
        self.setting = replace(self.setting, **changes)
        return self.setting

    def begin(self, slots: IntArray, examples: Sequence[Example]) -> None:
        """Starts new episodes in ``slots`` from ``examples``.

        Raises:
            PromptError: A prompt is empty or longer than ``max_prompt_tokens``.
        """
        setting, width = self.setting, self.setting.width
        encoded = setting.encode_prompts(examples)
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        seen = np.arange(width) >= width - lengths[:, None]  # (m, L)
        ids = np.full(seen.shape, setting.tokenizer.pad_token_id, dtype=np.int64)
        ids[seen] = np.fromiter(chain.from_iterable(encoded), dtype=np.int64, count=int(lengths.sum()))
        self._ids[slots, :width] = ids
        self._seen[slots, :width] = seen
        if setting.task.turn_end is not None:  # the last episode's replies
            self._by_policy[slots, width:] = 1
        self.appended[slots] = self.written[slots] = self._finish[slots] = 0
        for slot, example in zip(slots.tolist(), examples, strict=True):
            self.examples[slot] = example
        if setting.reward.dense:
            self._potentials[slots] = checked_scores(setting.reward, self.completions(slots), potential=True)

    def step(self, slots: IntArray, actions: IntArray) -> tuple[npt.NDArray[np.float32], BoolArray]:
        """Appends one token to each of ``slots``.

        Args:
            slots: Indices of unfinished episodes, shape ``(m,)``.
            actions: Tokens, shape ``(m,)``. A token that the action mask forbids is appended like any other (an end token
                before ``min_new_tokens`` does not end the episode), so that algorithms without masks run as well.

        Returns:
            Shaping rewards, shape ``(m,)`` (zero unless the reward is dense), and whether the episodes have ended, shape
            ``(m,)``. The rewards of ended episodes come from :meth:`score`.
        """
        setting = self.setting
        appended, written = self.appended[slots], self.written[slots] + 1
        self._ids[slots, setting.width + appended] = actions
        self.appended[slots], self.written[slots] = appended + 1, written
        stopped = (actions == setting.tokenizer.eos_token_id) & (written > setting.min_new_tokens)
        ended = stopped | (written >= setting.max_new_tokens)
        if ended.any():
            self._finish[slots] = 2 * ended - stopped
        if setting.task.turn_end is not None:
            self._reply(slots[setting.ends_turn[actions] & ~ended])
        rewards = np.zeros(len(slots), dtype=np.float32)
        if setting.reward.dense:
            going = slots[~ended]
            before = self._potentials[slots]
            if len(going):
                self._potentials[going] = checked_scores(setting.reward, self.completions(going), potential=True)
            after = np.where(ended, np.float32(0), self._potentials[slots])
            rewards += np.float32(setting.reward.gamma) * after - before
        return rewards, ended

    def _reply(self, slots: IntArray) -> None:
        for slot, completion in zip(slots, self.completions(slots), strict=True):
            text = self.setting.task.reply(completion)
            if text:
                column = self.setting.width + self.appended[slot]
                room = self.setting.task.max_reply_tokens - (self.appended[slot] - self.written[slot])
                ids = self.setting.tokenizer.encode(text)
                if len(ids) > room:
                    raise TextGymError(
                        f"Task {self.setting.task.id!r} replied with {len(ids)} tokens, expected at most {room} more of its "
                        f"max_reply_tokens={self.setting.task.max_reply_tokens}"
                    )
                self._ids[slot, column : column + len(ids)] = ids
                self._by_policy[slot, column : column + len(ids)] = 0
                self.appended[slot] += len(ids)

    def score(self, slots: IntArray) -> tuple[npt.NDArray[np.float32], Columns]:
        """Final rewards of ended episodes, shape ``(m,)``, and their infos (lists of ``m``), all scored in one call."""
        return self.setting.score(self.completions(slots))

    def completions(self, slots: IntArray) -> list[Completion]:
        """What has been written so far in ``slots``, as rewards see it. Decodes, so it costs time."""
        width, decode = self.setting.width, self.setting.tokenizer.decode_rows
        lengths = self.appended[slots]
        rows = self._ids[slots, width : width + lengths.max(initial=0)]  # (m, T)
        texts = transcripts = decode(rows, lengths)
        if self.setting.task.turn_end is not None:  # others may have spoken: the policy's own tokens to the front
            others = self._by_policy[slots, width : width + rows.shape[1]] == 0
            rows = np.take_along_axis(rows, np.argsort(others, axis=1, kind="stable"), axis=1)
            lengths = self.written[slots]
            texts = decode(rows, lengths)
        return [
            Completion(
                prompt=(example := self.examples[slot]).prompt,
                text=text,
                references=example.references,
                meta=example.meta,
                token_ids=tuple(ids[:length]),
                finish_reason=_FINISH_REASONS[finish],
                transcript=transcript,
            )
            for slot, finish, ids, length, text, transcript in zip(
                slots.tolist(),
                self._finish[slots].tolist(),
                rows.tolist(),
                lengths.tolist(),
                texts,
                transcripts,
                strict=True,
            )
        ]

    def observe(self, slots: IntArray | None = None) -> Observation:
        """Observations of ``slots`` (of all, if ``None``), each entry of shape ``(m, L)`` and newly made."""
        width = self.setting.width
        buffers: tuple[npt.NDArray[Any], ...] = (self._ids, self._seen, self._by_policy)
        starts = self.appended if slots is None else self.appended[slots]
        first = int(starts[0])
        if (starts == first).all():  # in lockstep: a plain copy
            windows = (a[:, first : first + width] for a in buffers)
            ids, seen, own = (a.copy() if slots is None else a[slots] for a in windows)
        else:
            rows = np.arange(len(starts)) if slots is None else slots
            cells = (rows * self._ids.shape[1] + starts)[:, None] + np.arange(width)
            ids, seen, own = (a.take(cells) for a in buffers)
        return {"input_ids": ids, "attention_mask": seen, "completion_mask": own}

    def action_masks(self, slots: IntArray | None = None) -> BoolArray:
        """Which tokens are allowed next in ``slots``, shape ``(m, V)``, newly made; true means allowed."""
        written = self.written if slots is None else self.written[slots]
        masks = np.repeat(self.setting.always_allowed[None], len(written), axis=0)
        masks[written < self.setting.min_new_tokens, self.setting.tokenizer.eos_token_id] = False
        return masks


def check_actions(actions: Any, slots: IntArray, n: int, vocab_size: int) -> IntArray:
    """``actions[slots]`` as int64, where ``actions`` has ``n`` entries; what it has in other slots does not matter.

    Raises:
        InvalidActionError: Wrong shape, not integers, or out of range; the message names the first bad one.
    """
    try:
        array = np.asarray(actions)
    except ValueError as error:  # lists of different lengths
        raise InvalidActionError(f"Expected actions of shape ({n},), actual: {actions!r}") from error
    if array.shape != (n,):
        raise InvalidActionError(f"Expected actions of shape ({n},), actual shape: {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InvalidActionError(f"Expected integer token ids, actual dtype: {array.dtype}, actions: {actions!r}")
    tokens = array[slots]
    bad = (tokens < 0) | (tokens >= vocab_size)
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise InvalidActionError(f"Expected a token id in [0, {vocab_size}), actual: {tokens[k]} in slot {slots[k]}")
    return tokens.astype(np.int64, copy=False)


def start_from(options: Mapping[str, Any] | None, key: str, n: int) -> list[Example] | None:
    """The examples that a caller asked ``reset`` to start from, under ``options[key]``; ``None`` if not asked."""
    if options is None or key not in options:
        return None
    wanted = options[key]
    wanted = [wanted] if key == "example" else wanted
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or len(wanted) != n:
        raise PromptError(expected(f"options[{key!r}]", wanted, f"a list of {n} texts or Examples, one an environment"))
    for example in wanted:
        if not isinstance(example, (str, Example)):
            raise PromptError(expected(f"options[{key!r}]", example, "a text or an Example"))
    return [Example(e) if isinstance(e, str) else e for e in wanted]


def _token_ids(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[int]:
    found = []
    for text in texts:
        ids = tokenizer.encode(text)
        if len(ids) != 1:
            raise TextGymError(f"Expected {text!r} to be a single token of the tokenizer, actual: {len(ids)} tokens")
        found.append(ids[0])
    return found
