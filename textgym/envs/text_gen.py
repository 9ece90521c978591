"""One text-generation episode as a Gymnasium environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from textgym.core import TextGymError, expected
from textgym.envs.attached import Attached, with_attached, without_attached
from textgym.envs.episodes import (
    BoolArray,
    Episodes,
    Observation,
    check_actions,
    make_setting,
    start_from,
)
from textgym.prompts import at_level
from textgym.rendering import View, make_renderer
from textgym.rewards import Shaped
from textgym.tasks import Task

_SLOT = np.array([0])


class TextGenEnv(gym.Env[Observation, int]):
    """Text generation as a Markov decision process: a state is a prefix of tokens, an action appends one token.

    The observation is a valid input of ``transformers``: left-padded, so that
    ``model(input_ids=..., attention_mask=...).logits[:, -1]`` scores the next action. Models with absolute positions (GPT-2
    and so the bundled one) need ``position_ids=(attention_mask.cumsum(-1) - 1).clip(0)`` as well, as ``generate`` gives them.

    Reaching the end token or the token budget are both part of the task, so both give ``terminated=True``; ``truncated``
    is left to outside limits such as ``TimeLimit``.

    On the last step ``info`` has ``prompt``, ``completion``, ``references``, ``finish_reason`` (``"stop"`` or ``"length"``),
    every part of the reward as ``reward/<name>`` and, where the task defines it and pays its own reward, ``is_success``.
    After ``reset`` it has ``prompt``.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "ansi", "rgb_array"], "render_fps": 12}
    observation_keys: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "completion_mask")

    def __init__(
        self,
        task: str | Task,
        split: str = "train",
        prompts: object = None,
        tokenizer: object = "bundled",
        reward: object = None,
        max_prompt_tokens: int | None = None,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        difficulty: str | None = None,
        render_mode: str | None = None,
        dataset: object = None,
    ) -> None:
        """Makes the environment; usually called by ``gym.make``.

        Args:
            task: Name of a task, its id, or a :class:`textgym.tasks.Task`.
            split: ``"train"``, ``"dev"`` or ``"test"``; they share no prompt.
            prompts: Your own prompts: a list, a JSON Lines file, a dataset, see :func:`textgym.prompts.load_prompts`;
                ``None`` for the task's own.
            tokenizer: See :func:`textgym.tokenization.load_tokenizer`.
            reward: See :func:`textgym.rewards.as_reward`; ``None`` for the task's own.
            max_prompt_tokens: Room for the prompt, at least 1; ``None`` for the task's default, as below.
            max_new_tokens: Token budget of the policy, at least 1.
            min_new_tokens: The end token is forbidden before this many tokens; 0 to ``max_new_tokens``.
            difficulty: Level of the task's generator, see the task's page.
            render_mode: ``"human"`` (the text grows in the terminal), ``"ansi"`` (a string), ``"rgb_array"`` (a picture
                of shape ``(H, W, 3)``, uint8) or ``None``.
            dataset: In place of ``prompts``, a data set of the Hugging Face Hub or a copy of it on this machine: ``"hub:imdb"``
                (a preset), ``"hub:owner/name"``, or a mapping such as ``{"preset": "imdb", "path": "imdb/{split}.jsonl"}``
                that JSON can hold, see :func:`textgym.data.specs.dataset_examples`. Where its prompts are longer than
                ``max_prompt_tokens``, ``"prompt_words"`` in the mapping shortens them.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(expected("render_mode", render_mode, f"None or one of {self.metadata['render_modes']}"))
        self.setting = make_setting(
            task,
            split,
            prompts,
            tokenizer,
            reward,
            max_prompt_tokens,
            max_new_tokens,
            min_new_tokens,
            difficulty,
            dataset,
        )
        self.render_mode = render_mode
        self.observation_space: spaces.Dict = self.setting.observation_space()  # type: ignore[assignment]
        self.action_space: spaces.Discrete = spaces.Discrete(self.setting.tokenizer.vocab_size)  # type: ignore[assignment]
        self._episodes = Episodes(self.setting, 1)
        self._begun = self._running = self._held = False
        self._attached: dict[str, Attached] = {}
        self._last_reward = 0.0
        self._renderer = make_renderer(render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Reseeds the environment's own generator; the prompts that follow depend on it alone.
            options: ``{"example": text_or_Example}`` starts from that prompt instead of a drawn one.

        Raises:
            PromptError: The prompt asked for is empty or too long.
        """
        super().reset(seed=seed)
        asked = start_from(options, "example", 1)
        example = asked[0] if asked else self.setting.prompts.draw(self.np_random)
        self._episodes.begin(_SLOT, [example])
        self._begun, self._running, self._held, self._last_reward = True, True, False, 0.0
        if self.render_mode == "human":
            self.render()
        return self._observe(), {"prompt": example.prompt}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Appends the token ``action``.

        Raises:
            InvalidActionError: ``action`` is not a token id.
            TextGymError: The episode has ended, or none has begun.
            RewardError: The reward failed, see :mod:`textgym.rewards.base`.
        """
        if self._held:
            return self._observe(), 0.0, False, False, {}
        if not self._running:
            raise TextGymError("Expected `reset` before this `step`: the episode has ended, or none has begun")
        actions = check_actions([action] if np.ndim(action) == 0 else action, _SLOT, 1, int(self.action_space.n))
        rewards, ended = self._episodes.step(_SLOT, actions)
        info: dict[str, Any] = {}
        if ended[0]:
            self._running = False
            final, infos = self._episodes.score(_SLOT)
            rewards = rewards + final
            info = {key: values[0] for key, values in infos.items() if values[0] is not None}
        self._last_reward += float(rewards[0])
        if self.render_mode == "human":
            self.render()
        return self._observe(), float(rewards[0]), bool(ended[0]), False, info

    def action_masks(self) -> BoolArray:
        """Which tokens are allowed next, shape ``(V,)``, true means allowed (the convention of sb3-contrib)."""
        masks: BoolArray = self._episodes.action_masks()[0]
        return masks

    def hold(self) -> None:
        """Lets the episode rest: until the next ``reset``, steps change nothing, pay 0 and do not end.

        For whoever plays whole episodes in several environments at once and waits for the longest.
        """
        self._held = True

    def set_difficulty(self, level: str) -> None:
        """Draws the prompts of the episodes to come from another level of the task; the random generator stays where it is.

        Raises:
            ValueError: Not a level of the task.
            PromptError: The prompts are not those of the task's generator.
        """
        self.setting = self._episodes.change(prompts=at_level(self.setting.prompts, level))

    def shape_reward(self, potential: object = None, gamma: float = 1.0) -> None:
        """Pays the reward step by step, see :class:`textgym.rewards.Shaped`; only before the first ``reset``.

        Raises:
            TextGymError: An episode has begun: its first part would go unpaid.
            ValueError, TypeError: See :class:`textgym.rewards.Shaped`.
        """
        if self._begun:
            raise TextGymError("Expected `shape_reward` before the first `reset`")
        self.setting = self._episodes.change(reward=Shaped(self.setting.reward, potential, gamma))

    def attach(self, name: str, part: Attached) -> None:
        """Makes the state of ``part`` (of a wrapper) belong to that of the environment, under ``name``.

        So it is saved and put back by whoever saves the environment's, also where that sees ``env.unwrapped`` only.
        """
        self._attached[name] = part

    def get_state(self) -> dict[str, Any]:
        """The state of the random generator, which decides all episodes to come, and of attached parts; JSON-able."""
        return with_attached(dict(self.np_random.bit_generator.state), self._attached)

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts back what :meth:`get_state` gave; the next ``reset`` draws what it would have drawn then.

        Raises:
            TextGymError: The state has that of a part which is not attached.
        """
        self.np_random.bit_generator.state = without_attached(state, self._attached)

    def render(self) -> Any:
        """Shows the episode as ``render_mode`` says: a string, a picture, or (``"human"``) printed and ``None``."""
        if self._renderer is None:
            gym.logger.warn(
                "render() was called without a render_mode; pass one to gym.make, such as render_mode='ansi'"
            )
            return None
        return self._renderer(view(self._episodes, 0, self._last_reward))

    def close(self) -> None:
        """Ends the terminal display, if there is one."""
        if self._renderer is not None:
            self._renderer.close()

    def _observe(self) -> Observation:
        return {key: value[0] for key, value in self._episodes.observe(_SLOT).items()}


def view(episodes: Episodes, slot: int, reward: float) -> View:
    """What there is to draw of an episode."""
    completion = episodes.completions(np.array([slot]))[0]
    return View(
        title=episodes.setting.task.id,
        prompt=completion.prompt,
        completion=completion.transcript,
        reward=reward,
        tokens=int(episodes.written[slot]),
        budget=episodes.setting.max_new_tokens,
        finish_reason=completion.finish_reason,
    )
