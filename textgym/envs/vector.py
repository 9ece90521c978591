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

from textgym.core import Example, TextGymError, expected, whole_number
from textgym.envs.attached import Attached, with_attached, without_attached
from textgym.envs.episodes import (
    BoolArray,
    Episodes,
    IntArray,
    Observation,
    check_actions,
    make_setting,
    start_from,
)
from textgym.envs.scoring import BackgroundScorer, Columns
from textgym.envs.text_gen import view
from textgym.prompts import at_level
from textgym.rendering import make_renderer
from textgym.rewards import Shaped
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
        dataset: object = None,
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
            dataset: See :class:`textgym.envs.TextGenEnv`.

        Raises:
            ValueError, TypeError: An argument is bad; the message names it, its value and what was expected.
        """
        self.num_envs, self.group_size = (
            whole_number("num_envs", num_envs, 1),
            whole_number("group_size", group_size, 1),
        )
        if self.num_envs % self.group_size:
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
        self.autoreset_mode = mode
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
        self._scorer: BackgroundScorer | None = None
        self._attached: dict[str, Attached] = {}

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

    @property
    def written(self) -> IntArray:
        """Number of tokens that the policy has written in every slot's episode, shape ``(n,)``."""
        return self._episodes.written.copy()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode in every slot, or in some.

        Args:
            seed: ``s`` seeds group ``g`` with ``s + g`` (with ``group_size=1``: slot ``i`` with ``s + i``); a list has one seed
                a slot (``None``: left as it is).
            options: ``{"reset_mask": mask}``, a bool array of shape ``(n,)``, resets these slots only.
                ``{"examples": [...]}`` has one prompt (text or Example) a slot to start from instead of drawn ones,
                ``{"example": text_or_Example}`` the same one for all.

        Raises:
            TypeError, ValueError: A bad mask or seed list.
            PromptError: A prompt asked for is empty or too long.
        """
        mask = self._reset_mask(options)
        asked = (
            start_from(options, "examples", self.num_envs) or (start_from(options, "example", 1) or []) * self.num_envs
        )
        self._seed(seed, mask)
        slots = np.flatnonzero(mask)
        begun = self._begin(slots, [asked[slot] for slot in slots] if asked else None)
        self._begun = True
        return self._episodes.observe(), self._infos((slots, begun))

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
        due = self._waiting & ~self._held
        if self.autoreset_mode == AutoresetMode.DISABLED and due.any():
            raise TextGymError(
                f"Expected a reset (or hold) of slots {np.flatnonzero(due).tolist()}, whose episodes have ended, before `step`"
            )
        live = np.flatnonzero(~self._waiting & ~self._held)
        tokens = check_actions(actions, live, self.num_envs, self.setting.tokenizer.vocab_size)
        paid, ended = self._episodes.step(live, tokens)
        done = live[ended]
        self._waiting[done] = True
        finals: Columns = {}
        if len(done) and self._scorer is not None:
            self._scorer.put(done.tolist(), self._episodes.completions(done))
        elif len(done):
            scores, finals = self._episodes.score(done)
            paid[ended] += scores
        self._returns[live] += paid
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        rewards[live] = paid
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        terminated[done] = True
        infos: dict[str, Any] = {}
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            restarted = np.flatnonzero(due)
            infos = self._infos((done, finals), (restarted, self._begin(restarted)))
        elif len(done):
            infos = self._final_infos(done, finals)
            infos.update(self._infos((done, self._begin(done))))
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

    def defer_scores(self, defer: bool) -> None:
        """Lets rewards be computed in another thread, while episodes that still run go on.

        From ``defer_scores(True)`` to ``defer_scores(False)`` a step that ends an episode pays nothing for it (but for the
        shaping of dense rewards) and says nothing of it in ``infos``; :meth:`settle` does both later. For whoever plays whole
        episodes and has a use for their rewards only once all have ended.
        """
        if self._scorer is not None:
            self._scorer.close()
        self._scorer = BackgroundScorer(self.setting.score) if defer else None

    def settle(self) -> dict[int, tuple[float, dict[str, Any]]]:
        """Waits for the scores that are due; the final reward and the info of the last episode that ended in each slot.

        Raises:
            RewardError: The reward failed.
            TextGymError: Scores are not deferred.
        """
        if self._scorer is None:
            raise TextGymError("Expected `defer_scores(True)` before `settle`")
        return {
            slot: (float(rewards[i]), {key: values[i] for key, values in infos.items() if values[i] is not None})
            for slots, rewards, infos in self._scorer.settle()
            for i, slot in enumerate(slots)
        }

    def set_difficulty(self, level: str) -> None:
        """See :meth:`textgym.envs.TextGenEnv.set_difficulty`; running episodes go on as they are."""
        self.setting = self._episodes.change(prompts=at_level(self.setting.prompts, level))

    def shape_reward(self, potential: object = None, gamma: float = 1.0) -> None:
        """See :meth:`textgym.envs.TextGenEnv.shape_reward`."""
        if self._begun:
            raise TextGymError("Expected `shape_reward` before the first `reset`")
        self.setting = self._episodes.change(reward=Shaped(self.setting.reward, potential, gamma))

    def attach(self, name: str, part: Attached) -> None:
        """See :meth:`textgym.envs.TextGenEnv.attach`; the state of the first slot has that of the part."""
        self._attached[name] = part

    def get_state(self) -> list[dict[str, Any]]:
        """The state of every slot's random generator, which decides all episodes to come, and of attached parts; JSON-able."""
        first, *others = (dict(generator.bit_generator.state) for generator in self.np_random)
        return [with_attached(first, self._attached), *others]

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Puts back what :meth:`get_state` gave; the next ``reset`` draws what it would have drawn then.

        Raises:
            ValueError: Not one state a slot.
            TextGymError: The state has that of a part which is not attached.
        """
        if len(states) != self.num_envs:
            raise ValueError(f"Expected {self.num_envs} states, one a slot, actual: {len(states)}")
        plain = [without_attached(states[0], self._attached), *states[1:]]
        for generator, state in zip(self.np_random, plain, strict=True):
            generator.bit_generator.state = state

    def render(self) -> tuple[Any, ...] | None:
        """Every slot as ``render_mode`` says: a tuple of strings or of pictures."""
        if self._renderer is None:
            return None
        return tuple(self._renderer(view(self._episodes, i, float(self._returns[i]))) for i in range(self.num_envs))

    def _begin(self, slots: IntArray, examples: list[Example] | None = None) -> Columns:
        """Starts episodes, from drawn examples if none are given; returns their infos."""
        if not len(slots):
            return {}
        if examples is None:
            examples = [self.setting.prompts.draw(self._generators[slot]) for slot in slots.tolist()]
        self._episodes.begin(slots, examples)
        self._waiting[slots] = self._held[slots] = False
        self._returns[slots] = 0
        return {"prompt": [example.prompt for example in examples]}

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
        seeds: list[int | None]
        if isinstance(seed, (Sequence, np.ndarray)) and not isinstance(seed, str):
            if len(seed) != self.num_envs:
                raise ValueError(expected("seed", seed, f"one number, or a list of num_envs={self.num_envs}"))
            seeds = [None if s is None else whole_number("seed", s, 0) for s in seed]
        else:
            seeds = [whole_number("seed", seed, 0) + i // self.group_size for i in range(self.num_envs)]
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

    def _infos(self, *parts: tuple[IntArray, Columns]) -> dict[str, Any]:
        """What ``VectorEnv._add_info`` makes of an info a slot, made a key at a time: much faster.

        Args:
            parts: Slots, and for each key their values.
        """
        infos: dict[str, Any] = {}
        for slots, columns in parts:
            for key, values in columns.items():
                at = slots
                if None in values:
                    at = slots[[value is not None for value in values]]
                    values = [value for value in values if value is not None]
                    if not values:
                        continue
                if key not in infos:
                    kind = type(values[0]) if type(values[0]) in (bool, int, float) else object
                    infos[key] = np.full(self.num_envs, None if kind is object else 0, dtype=kind)
                    infos[f"_{key}"] = np.zeros(self.num_envs, dtype=np.bool_)
                infos[key][at] = np.fromiter(values, dtype=infos[key].dtype, count=len(values))
                infos[f"_{key}"][at] = True
        return infos

    def _final_infos(self, done: IntArray, finals: Columns) -> dict[str, Any]:
        rows = [
            {"input_ids": ids, "attention_mask": seen, "completion_mask": own}
            for ids, seen, own in zip(*self._episodes.observe(done).values(), strict=True)
        ]
        infos = self._infos((done, {"final_obs": rows}))
        return {**infos, "final_info": self._infos((done, finals)), "_final_info": infos["_final_obs"].copy()}
