"""Many text-generation episodes side by side, stepped without a Python loop over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from textgym.core import Example, TextGymError, expected
from textgym.envs.episodes import BoolArray, Episodes, IntArray, Observation, check_actions, make_setting, start_from
from textgym.envs.text_gen import view
from textgym.rendering import make_renderer
from textgym.tasks import Task

Array = npt.NDArray[Any]


class TextGenVectorEnv(VectorEnv[Observation, Array, Array]):
    """``num_envs`` episodes of a task, batched natively.

    With the same seeds and actions, slot ``i`` sees token for token what a single environment sees, whatever runs beside
    it. Rewards of all episodes that end in the same step are scored in one call.

    ``infos`` follow Gymnasium's convention: ``infos[key]`` has one entry a slot, ``infos["_" + key]`` says which entries are
    real. In SAME_STEP mode a finished episode's observation and info are under ``final_obs`` and ``final_info``.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 12}

    def __init__(
        self,
        task: str | Task,
        num_envs: int = 1,
        split: str = "train",
        prompts: object = None,
        tokenizer: object = "bundled",
        reward: object = None,
        max_prompt_tokens: int | None = None,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        difficulty: str | None = None,
        render_mode: str | None = None,
        group_size: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        """Makes the environment; usually called by ``gym.make_vec``.

        Args:
            task: See :class:`textgym.envs.TextGenEnv`, as for every argument that is not named here.
            num_envs: Number of slots ``n``, at least 1.
            split: See there.
            prompts: See there.
            tokenizer: See there.
            reward: See there.
            max_prompt_tokens: See there.
            max_new_tokens: See there.
            min_new_tokens: See there.
            difficulty: See there.
            render_mode: ``"ansi"`` or ``"rgb_array"`` (a tuple with one result a slot) or ``None``.
            group_size: Slots ``G`` that form a group, a divisor of ``num_envs``. The k-th episodes of a group's slots have the
                same prompt, and no slot waits for another. Seeds count groups then: slot ``i`` gets ``seed + i // G``.
            autoreset_mode: ``"NextStep"`` (the step after an end resets: its action is ignored, its reward 0),
                ``"SameStep"`` (an end resets at once) or ``"Disabled"`` (the caller resets, with
                ``reset(options={"reset_mask": mask})``, or lets a slot rest with :meth:`hold`).

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        for name, value in (("num_envs", num_envs), ("group_size", group_size)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(expected(name, value, "a whole number of at least 1"))
        if num_envs % group_size:
            raise ValueError(expected("group_size", group_size, f"a divisor of num_envs={num_envs}"))
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(expected("render_mode", render_mode, f"None or one of {self.metadata['render_modes']}"))
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError:
            raise ValueError(
                expected("autoreset_mode", autoreset_mode, f"one of {[m.value for m in AutoresetMode]}")
            ) from None
        self.setting = make_setting(
            task, split, prompts, tokenizer, reward, max_prompt_tokens, max_new_tokens, min_new_tokens, difficulty
        )
        self.num_envs, self.group_size, self.autoreset_mode = int(num_envs), int(group_size), mode
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.render_mode = render_mode
        self.single_observation_space = self.setting.observation_space()
        self.single_action_space = spaces.Discrete(self.setting.tokenizer.vocab_size)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._episodes = Episodes(self.setting, self.num_envs)
        self._generators: list[np.random.Generator] = []
        self._seeds: list[int] = []
        self._waiting = np.ones(self.num_envs, dtype=np.bool_)  # ended or never begun: nothing to step until a reset
        self._held = np.zeros(self.num_envs, dtype=np.bool_)
        self._begun = False
        self._returns = np.zeros(self.num_envs, dtype=np.float32)
        self._renderer = make_renderer(render_mode)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random generator of every slot."""
        self._ensure_generators()
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of every slot's generator."""
        self._ensure_generators()
        return tuple(self._seeds)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode in every slot, or in some.

        Args:
            seed: ``s`` seeds group ``g`` with ``s + g`` (with ``group_size=1``: slot ``i`` with ``s + i``); a list has one seed
                a slot (``None``: left as it is).
            options: ``{"reset_mask": mask}``, a bool array of shape ``(n,)``, resets these slots only.
                ``{"examples": [...]}`` has one prompt (text or Example) a slot to start from instead of drawn ones.

        Raises:
            TypeError, ValueError: A bad mask or seed list.
            PromptError: A prompt asked for is empty or too long.
        """
        mask = self._reset_mask(options)
        self._seed(seed, mask)
        slots = np.flatnonzero(mask)
        asked = start_from(options, "examples", self.num_envs)
        self._begin(slots, None if asked is None else [asked[slot] for slot in slots])
        self._begun = True
        return self._episodes.observe(), self._prompt_infos(slots)

    def step(self, actions: Array) -> tuple[Observation, Array, BoolArray, BoolArray, dict[str, Any]]:
        """Appends ``actions[i]`` to slot ``i``.

        Args:
            actions: Token ids, shape ``(n,)``. Ignored in slots that are held and in those that NEXT_STEP resets now.

        Returns:
            Observations (each entry of shape ``(n, L)``), rewards float64 ``(n,)``, terminations and truncations bool ``(n,)``,
            infos.

        Raises:
            InvalidActionError: An action is not a token id.
            TextGymError: No episode has begun, or (DISABLED) a slot has ended and was not reset.
            RewardError: The reward failed.
        """
        if not self._begun:
            raise TextGymError("Expected `reset` before the first `step`")
        tokens = check_actions(actions, self.num_envs, self.setting.tokenizer.vocab_size)
        due = self._waiting & ~self._held
        if self.autoreset_mode == AutoresetMode.DISABLED and due.any():
            raise TextGymError(
                f"Expected a reset (or hold) of slots {np.flatnonzero(due).tolist()}, whose episodes have ended, before `step`"
            )
        live = np.flatnonzero(~self._waiting & ~self._held)
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        shaping, ended = self._episodes.step(live, tokens[live])
        rewards[live] = shaping
        done = live[ended]
        finals: list[dict[str, Any]] = []
        if len(done):
            scores, finals = self._episodes.score(done)
            rewards[done] += scores
            terminated[done] = self._waiting[done] = True
        self._returns += rewards.astype(np.float32)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            if len(done):
                self._put_final(infos, done, finals)
                self._begin(done, None)
                infos.update(self._prompt_infos(done))
        else:
            for slot, info in zip(done, finals, strict=True):
                infos = self._add_info(infos, info, int(slot))
            if due.any():
                slots = np.flatnonzero(due)
                self._begin(slots, None)
                for slot in slots:
                    infos = self._add_info(infos, {"prompt": self._episodes.examples[slot].prompt}, int(slot))
        return self._episodes.observe(), rewards, terminated, np.zeros(self.num_envs, dtype=np.bool_), infos

    def action_masks(self) -> BoolArray:
        """Which tokens are allowed next, shape ``(n, V)``, true means allowed (the convention of sb3-contrib)."""
        return self._episodes.action_masks()

    def hold(self, mask: BoolArray) -> None:
        """Lets slots rest: until their next ``reset``, steps change nothing there, pay 0 and do not end.

        Args:
            mask: Bool array of shape ``(n,)``; true means rest.

        Raises:
            ValueError: Another shape or type.
        """
        array = np.asarray(mask)
        if array.shape != (self.num_envs,) or array.dtype != np.bool_:
            raise ValueError(expected("mask", mask, f"a bool array of shape ({self.num_envs},)"))
        self._held |= array

    def get_state(self) -> list[dict[str, Any]]:
        """The state of every slot's random generator, which decides all episodes to come; JSON-able."""
        return [dict(generator.bit_generator.state) for generator in self.np_random]

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Puts back what :meth:`get_state` gave; the next ``reset`` draws what it would have drawn then.

        Raises:
            ValueError: Not one state a slot.
        """
        if len(states) != self.num_envs:
            raise ValueError(f"Expected {self.num_envs} states, one a slot, actual: {len(states)}")
        for generator, state in zip(self.np_random, states, strict=True):
            generator.bit_generator.state = state

    def render(self) -> tuple[Any, ...] | None:
        """Every slot as ``render_mode`` says: a tuple of strings or of pictures."""
        if self._renderer is None:
            return None
        return tuple(self._renderer(view(self._episodes, i, float(self._returns[i]))) for i in range(self.num_envs))

    def _begin(self, slots: IntArray, examples: list[Example] | None) -> None:
        if examples is None:
            examples = [self.setting.prompts.draw(self._generators[slot]) for slot in slots]
        self._episodes.begin(slots, examples)
        self._waiting[slots] = self._held[slots] = False
        self._returns[slots] = 0

    def _reset_mask(self, options: Mapping[str, Any] | None) -> BoolArray:
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        if options is None or "reset_mask" not in options:
            return everywhere
        mask = options["reset_mask"]
        wanted = f"a numpy bool array of shape ({self.num_envs},) with at least one true"
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(expected("options['reset_mask']", mask, wanted))
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(expected("options['reset_mask']", mask, wanted))
        if not self._begun:
            raise TextGymError("Expected a reset of all slots before the first one with a reset_mask")
        return mask

    def _seed(self, seed: int | Sequence[int | None] | None, mask: BoolArray) -> None:
        self._ensure_generators()
        if seed is None:
            return
        if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
            seeds: Sequence[int | None] = [int(seed) + i // self.group_size for i in range(self.num_envs)]
        else:
            seeds = list(seed)  # type: ignore[arg-type]
            if len(seeds) != self.num_envs:
                raise ValueError(expected("seed", seed, f"one number, or a list of num_envs={self.num_envs}"))
        for first in range(0, self.num_envs, self.group_size):
            if len(set(seeds[first : first + self.group_size])) > 1:
                raise ValueError(expected("seed", list(seeds), f"the same in each group of {self.group_size} slots"))
        for slot in np.flatnonzero(mask):
            if (value := seeds[int(slot)]) is not None:
                self._generators[slot], self._seeds[slot] = seeding.np_random(value)

    def _ensure_generators(self) -> None:
        """Without a seed, every group gets one from the system; the slots of a group the same."""
        if not self._generators:
            for _ in range(self.num_envs // self.group_size):
                _, fresh = seeding.np_random(None)
                pairs = [seeding.np_random(fresh) for _ in range(self.group_size)]
                self._generators += [generator for generator, _ in pairs]
                self._seeds += [number for _, number in pairs]

    def _prompt_infos(self, slots: IntArray) -> dict[str, Any]:
        prompts, mask = np.full(self.num_envs, None, dtype=object), np.zeros(self.num_envs, dtype=np.bool_)
        for slot in slots:
            prompts[slot] = self._episodes.examples[slot].prompt
        mask[slots] = True
        return {"prompt": prompts, "_prompt": mask}

    def _put_final(self, infos: dict[str, Any], done: IntArray, finals: list[dict[str, Any]]) -> None:
        observations, of_slot = self._episodes.observe(done), np.full(self.num_envs, None, dtype=object)
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        mask[done] = True
        final_infos: dict[str, Any] = {}
        for k, slot in enumerate(done):
            of_slot[slot] = {key: value[k] for key, value in observations.items()}
            final_infos = self._add_info(final_infos, finals[k], int(slot))
        infos.update({"final_obs": of_slot, "_final_obs": mask, "final_info": final_infos, "_final_info": mask.copy()})
