"""The environment as a contextual bandit: a whole completion is one action."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from textgym.core import expected
from textgym.envs.episodes import InvalidActionError, Observation
from textgym.wrappers._common import single_base

_LETTERS_A_TOKEN = 16  # only for samples of the action space: a text of any length is taken


class WholeCompletionWrapper(gym.Wrapper[Observation, Any, Observation, int], gym.utils.RecordConstructorArgs):
    """One step takes a whole completion and plays it token by token to the end of the episode.

    The step returns the last observation, the sum of the rewards, ``terminated=True`` (or ``truncated``, where an outside
    limit came first) and the last info. What comes after the end of the episode is ignored; where the action is used up
    first, end tokens follow. In a task of several turns the action has all the policy's turns, chosen before any reply.

    The action is

    * ``"tokens"``: token ids, ``MultiDiscrete`` with one of ``V`` for each of the ``max_new_tokens`` places. Shorter sequences
      and -1 for places that are not used are taken as well;
    * ``"text"``: a text of any letters and length, which the tokenizer encodes.

    Example:
        >>> import gymnasium as gym, textgym
        >>> from textgym.wrappers import WholeCompletionWrapper
        >>> env = WholeCompletionWrapper(gym.make("TextGen-Sentiment-v0"), action="text")
        >>> _ = env.reset(seed=0)
        >>> _, reward, terminated, _, _ = env.step(" and I loved every minute of it.")
        >>> terminated, bool(reward > 0.5)
        (True, True)
    """

    def __init__(self, env: gym.Env[Any, Any], action: str = "tokens") -> None:
        """Args: env: An environment of textgym. action: ``"tokens"`` or ``"text"``.

        Raises:
            ValueError: Another ``action``.
            TypeError: ``env`` is not of textgym.
        """
        gym.utils.RecordConstructorArgs.__init__(self, action=action)
        gym.Wrapper.__init__(self, env)
        setting = single_base(env).setting
        if action not in ("tokens", "text"):
            raise ValueError(expected("action", action, "'tokens' or 'text'"))
        self._room, self._tokenizer = setting.max_new_tokens, setting.tokenizer
        self._texts = action == "text"
        self.action_space: Any = (
            spaces.Text(self._room * _LETTERS_A_TOKEN, min_length=0, charset=string.printable)
            if self._texts
            else spaces.MultiDiscrete(np.full(self._room, self._tokenizer.vocab_size))
        )

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Plays a whole completion.

        Raises:
            InvalidActionError: It is of another type, too long, or has a number that is not a token id.
            TextGymError: The episode has ended, or none has begun.
        """
        tokens = self._encoded(action)
        total = 0.0
        for place in range(self._room):
            token = tokens[place] if place < len(tokens) else self._tokenizer.eos_token_id
            observation, reward, terminated, truncated, info = self.env.step(token)
            total += float(reward)
            if terminated or truncated:
                return observation, total, terminated, truncated, info
        raise InvalidActionError(f"Expected the episode to end within {self._room} tokens, actual: it goes on")

    def _encoded(self, action: Any) -> Sequence[int]:
        if self._texts:
            if not isinstance(action, str):
                raise InvalidActionError(expected("action", action, "a text"))
            return self._tokenizer.encode(action)
        array = np.asarray(action)
        if array.ndim != 1 or len(array) > self._room or (len(array) and not np.issubdtype(array.dtype, np.integer)):
            raise InvalidActionError(expected("action", action, f"at most max_new_tokens={self._room} token ids"))
        used = np.append(array, -1) >= 0
        return [int(token) for token in array[: used.argmin()]]
