"""What on-policy algorithms over text share: rollouts of whole episodes, the reference model, the training loop."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, safe_mean
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from transformers import PreTrainedModel

from textgym.core import TextGymError, expected, number, whole_number
from textgym_agents.algorithms.kl import KLController
from textgym_agents.algorithms.options import as_schedule, check_ranges, first_value
from textgym_agents.algorithms.saving import put_states
from textgym_agents.algorithms.updates import MinibatchUpdates
from textgym_agents.models.adapters import without_adapters
from textgym_agents.models.backbone import Backbone, backbone_of
from textgym_agents.models.loading import check_fits, load_model
from textgym_agents.policies import CausalLMPolicy, LMPolicy, Seq2SeqLMPolicy
from textgym_agents.rollouts.buffers import SequenceBuffer, Sequences
from textgym_agents.rollouts.decoding import Limits
from textgym_agents.rollouts.play import OnStep, play_episodes
from textgym_agents.rollouts.sampling import Decoding
from textgym_agents.rollouts.vllm_writer import VLLMWriter
from textgym_agents.rollouts.writers import PolicyWriter, RolloutWriter
from textgym_agents.vec_env import GymVecEnv, vectorised

BACKENDS: dict[str, Callable[..., RolloutWriter]] = {"transformers": PolicyWriter, "vllm": VLLMWriter}
"""Who can write a rollout's tokens, by the name that ``rollout_backend`` takes."""

Self = TypeVar("Self", bound="TextAlgorithm")


class TextAlgorithm(MinibatchUpdates):
    """An SB3 on-policy algorithm whose unit of work is the episode.

    A rollout plays one whole episode in every environment, and again until ``n_steps * n_envs`` tokens are there. Subclasses
    define what is an advantage and what a loss, see :class:`MinibatchUpdates`, or ``train`` on ``self.rollout_buffer``.

    Attributes:
        reference: The model that the policy is held to; ``None`` without a penalty.
        kl: The coefficient of the penalty and its controller.
        writer: Writes the tokens of rollouts.
        generator: Source of all randomness of rollouts and minibatches.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "CausalLMPolicy": CausalLMPolicy,
        "Seq2SeqLMPolicy": Seq2SeqLMPolicy,
    }
    reference: PreTrainedModel | None

    def __init__(
        self,
        policy: str | type[LMPolicy],
        env: Any,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 1,
        batch_size: int = 32,
        n_epochs: int = 1,
        gamma: float = 1.0,
        gae_lambda: float = 1.0,
        *,
        ent_coef: float = 0.0,
        vf_coef: float = 0.0,
        max_grad_norm: float = 1.0,
        target_kl: float | None = None,
        micro_batch_tokens: int = 8192,
        whiten_rewards: bool = False,
        kl_coef: float | str | Schedule = 0.05,
        kl_target: float | None = None,
        kl_horizon: int = 2000,
        ref_model: str | PreTrainedModel | None = None,
        temperature: float | str | Schedule = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        rollout_backend: str = "transformers",
        rollout_kwargs: dict[str, Any] | None = None,
        n_envs: int = 64,
        env_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        learning_rate = as_schedule("learning_rate", learning_rate)
        kl_coef, temperature = as_schedule("kl_coef", kl_coef), as_schedule("temperature", temperature)
        if not isinstance(policy, str) and not (inspect.isclass(policy) and issubclass(policy, LMPolicy)):
            raise TypeError(expected("policy", policy, "'CausalLMPolicy', 'Seq2SeqLMPolicy' or a subclass of LMPolicy"))
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise ValueError(expected("policy", policy, f"one of {sorted(self.policy_aliases)} or a class"))
        check_ranges(
            n_envs=n_envs,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            micro_batch_tokens=micro_batch_tokens,
            stats_window_size=stats_window_size,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            target_kl=target_kl,
            max_grad_norm=max_grad_norm,
            learning_rate=learning_rate,
        )
        if seed is not None and whole_number("seed", seed, 0) >= 2**32:
            raise ValueError(expected("seed", seed, "None or a whole number below 2**32"))
        if policy_kwargs is not None and not isinstance(policy_kwargs, dict):
            raise TypeError(expected("policy_kwargs", policy_kwargs, "a dict, such as {'model': 'bundled'}, or None"))
        if rollout_backend not in BACKENDS:
            raise ValueError(expected("rollout_backend", rollout_backend, f"one of {sorted(BACKENDS)}"))
        if rollout_kwargs and (rollout_backend == "transformers" or not isinstance(rollout_kwargs, dict)):
            raise ValueError(
                expected("rollout_kwargs", rollout_kwargs, "None, or a dict of arguments of vllm.LLM with 'vllm'")
            )
        self.rollout_backend, self.rollout_kwargs = rollout_backend, rollout_kwargs
        self.batch_size, self.n_epochs, self.target_kl = batch_size, n_epochs, target_kl
        self.micro_batch_tokens = micro_batch_tokens
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.decoding = Decoding(first_value("temperature", temperature), top_k, top_p)
        self.kl_coef, self.kl_target, self.kl_horizon, self.ref_model = kl_coef, kl_target, kl_horizon, ref_model
        self.kl = KLController(first_value("kl_coef", kl_coef), kl_target, kl_horizon)
        if callable(kl_coef) and kl_target is not None:
            raise ValueError(expected("kl_target", kl_target, "None where kl_coef is a schedule"))
        if not isinstance(whiten_rewards, bool):
            raise ValueError(expected("whiten_rewards", whiten_rewards, "True or False"))
        self.whiten_rewards = whiten_rewards
        if env_kwargs is not None and not isinstance(env_kwargs, dict):
            raise TypeError(expected("env_kwargs", env_kwargs, "a dict of arguments of the environment, or None"))
        if isinstance(env, str):
            env = vectorised(env, n_envs, **(env_kwargs or {}))
        elif env_kwargs:
            raise ValueError(expected("env_kwargs", env_kwargs, "None where `env` is not an id: it is made already"))
        elif not isinstance(env, (gym.Env, VectorEnv, VecEnv)) and not (env is None and not _init_setup_model):
            raise TypeError(
                expected("env", env, "an environment, a vector environment or an id such as 'TextGen-Sentiment-v0'")
            )
        super().__init__(
            policy,  # type: ignore[arg-type]  # SB3 means any policy with ActorCriticPolicy's interface
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=SequenceBuffer,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            supported_action_spaces=(spaces.Discrete,),
            _init_setup_model=False,
        )
        self.limits: Limits | None = None if self.env is None else _limits_of(self.env)
        self._rollout_start: dict[str, Any] | None = None
        self._env_states: list[dict[str, Any]] | None = None  # to be put back when a loaded training goes on
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """SB3's, which also takes Gymnasium's vector environments."""
        if isinstance(env, VectorEnv):
            env = GymVecEnv(env)
        if isinstance(env, GymVecEnv) and monitor_wrapper:
            env = VecMonitor(env)
        return OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.generator = torch.Generator(device=self.device)
        predicting = torch.Generator(device=self.device)
        if self.seed is None:
            self.generator.seed()
            predicting.seed()
        else:
            self.generator.manual_seed(self.seed)
            predicting.manual_seed(self.seed + 1)
        self.rollout_buffer = SequenceBuffer(
            self.n_steps,
            self.observation_space,
            self.action_space,
            device=self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
        )
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, limits=self.limits, **self.policy_kwargs
        )
        self.limits = self.policy.limits
        if not self.policy.share_features_extractor and self.vf_coef == 0:
            raise ValueError(
                expected("share_features_extractor", False, "True where vf_coef is 0: no value network is trained")
            )
        self.policy = self.policy.to(self.device)
        self.policy.generator = predicting
        self.writer = self._make_writer()
        if self.env is not None:
            self._check_env(self.env)
        self.reference = None
        if self.kl.coef > 0:
            given = None if self.ref_model is None else load_model(self.ref_model, self.policy.encoder_decoder)
            self._hold_to(self._present_model() if given is None or given is self.policy.model else given)

    def _make_writer(self) -> RolloutWriter:
        backend = BACKENDS[self.rollout_backend]
        return backend(self.policy, self.decoding, self.generator, **(self.rollout_kwargs or {}))

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """See SB3.

        Raises:
            ModelError, ValueError: The algorithm cannot play in it.
        """
        super().set_env(env, force_reset)
        assert self.env is not None
        self._check_env(self.env)

    @classmethod
    def needed_env_kwargs(cls, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that an environment made by its id needs for an algorithm with these hyperparameters."""
        return {}

    def _check_env(self, env: VecEnv) -> None:
        """Raises an error if the algorithm cannot play in these environments."""
        self.writer.check(env)

    def _present_model(self) -> PreTrainedModel:
        """A reference to hold the policy to from now on: a copy of its model; with LoRA, the model without its adapters."""
        model = self.policy.model
        return copy.deepcopy(model) if self.policy.lora is None else without_adapters(model)

    def _hold_to(self, reference: PreTrainedModel) -> None:
        """Makes a model the reference: it must fit the environment, and from now on it does not change."""
        check_fits(reference, self.policy.vocab_size, self.observation_space["input_ids"].shape[0])  # type: ignore[index]
        self.reference = reference.to(self.device).requires_grad_(False).eval()  # type: ignore[arg-type]
        self._reference_backbone = backbone_of(self.reference, self.policy.vocab_size, self.policy.bf16)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        action_masks: np.ndarray | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        num_beams: int = 1,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The next token; see :meth:`LMPolicy.predict`. What is not given is as in training.

        ``deterministic=True`` is greedy decoding; ``num_beams`` above 1 is beam search.
        """
        decoding = Decoding(
            self.decoding.temperature if temperature is None else temperature,
            self.top_k if top_k is None else top_k,
            self.top_p if top_p is None else top_p,
        )
        return self.policy.predict(
            observation,
            state,
            episode_start,
            deterministic,
            action_masks=action_masks,
            decoding=decoding,
            num_beams=num_beams,
        )

    # ---- rollouts ---------------------------------------------------------------------------------------------------

    def learn(
        self: Self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Trains for ``total_timesteps`` tokens, rounded up to whole rollouts; see SB3's ``learn``.

        Raises:
            TextGymError: There is no environment.
            TrainingError: The loss or the gradient is not finite.
            ValueError: ``total_timesteps`` is not a number.
        """
        number("total_timesteps", total_timesteps, -math.inf, math.inf, wanted="a number of tokens")
        if self.env is None:
            raise TextGymError("Expected an environment to learn in: load(path, env=...) or set_env(env) gives one")
        if reset_num_timesteps:
            self._env_states = None  # a new training, not the rest of the loaded one
        return super().learn(
            total_timesteps,
            callback,
            log_interval,
            tb_log_name or type(self).__name__,
            reset_num_timesteps,
            progress_bar,
        )

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """SB3's, but never below 0: the last rollout is a whole one, and a schedule must not turn negative for it."""
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: SequenceBuffer, n_rollout_steps: int
    ) -> bool:
        """Fills the buffer with whole episodes of at least ``n_rollout_steps * n_envs`` tokens; see SB3.

        ``callback.on_step`` is called once a step of the environments, as in SB3; ``num_timesteps`` counts tokens written, so
        slots that rest do not count.
        """
        self._begin_rollout(env, callback, rollout_buffer)
        final_infos: list[dict[str, Any]] = []
        self.writer.synchronise()

        def on_step(tokens: int, step: dict[str, Any]) -> bool:
            self.num_timesteps += tokens
            callback.update_locals(step)
            final_infos.extend(step["infos"][slot] for slot in step["slots"] if step["dones"][slot])
            return callback.on_step()

        while rollout_buffer.num_tokens < n_rollout_steps * env.num_envs:
            known = len(final_infos)
            sequences = self._episodes(env, on_step)
            self._update_info_buffer(final_infos[known:], np.ones(len(final_infos) - known, dtype=np.bool_))
            if sequences is None:
                return False
            rollout_buffer.add_sequences(sequences)
        self._score(rollout_buffer)
        for name in sorted({key for info in final_infos for key in info if key.startswith("reward/")}):
            self.logger.record(f"rollout/{name}", safe_mean([info[name] for info in final_infos if name in info]))
        callback.update_locals({"rollout_buffer": rollout_buffer})
        callback.on_rollout_end()
        return True

    def _begin_rollout(self, env: VecEnv, callback: BaseCallback, rollout_buffer: SequenceBuffer) -> None:
        """Empties the buffer, and notes where a checkpoint would continue."""
        if self._env_states is not None:
            put_states(env, self._env_states)
            self._env_states = None
        self.policy.set_training_mode(False)
        self._rollout_start = self._progress()
        self._follow_schedules()
        rollout_buffer.reset()
        callback.on_rollout_start()

    def _follow_schedules(self) -> None:
        """Sets the temperature and the weight of the penalty, where they are schedules, to what they are now."""
        if callable(self.temperature):
            self.writer.decoding = self.decoding = Decoding(self._now(self.temperature), self.top_k, self.top_p)
        if callable(self.kl_coef):
            self.kl.coef = self._now(self.kl_coef)

    def _episodes(self, env: VecEnv, on_step: OnStep) -> Sequences | None:
        """Episodes to learn from, one of every environment as the policy plays it; ``None`` if ``on_step`` stopped it."""
        return play_episodes(env, self.policy, self.writer, on_step)

    def _score(self, buffer: SequenceBuffer) -> None:
        """Completes the buffer: reference log-probabilities and advantages."""
        sequences = buffer.stack()
        penalty = torch.zeros_like(sequences.rewards)
        if self.reference is not None:
            sequences = sequences.with_(ref_log_probs=self._reference_log_probs(sequences))
            difference = torch.where(sequences.action_mask, sequences.log_probs - sequences.ref_log_probs, penalty)
            kl = float(difference.sum(-1).mean())  # nats an episode
            penalty = self.kl.coef * difference
            self.logger.record("rollout/kl", kl)
            self.logger.record("train/kl_coef", self.kl.coef)
            self.kl.update(kl, len(sequences))
        if callable(self.temperature):
            self.logger.record("rollout/temperature", self.decoding.temperature)
        if self.whiten_rewards:
            spread = (sequences.rewards - penalty)[sequences.action_mask].std(unbiased=False) + 1e-8
            sequences, penalty = sequences.with_(rewards=sequences.rewards / spread), penalty / spread
        buffer.sequences = self._with_advantages(sequences, penalty)

    def _with_advantages(self, sequences: Sequences, penalty: torch.Tensor) -> Sequences:
        """Sets ``advantages`` (and ``returns``, where there are values to train).

        Args:
            sequences: A whole rollout.
            penalty: ``[B, T]``, the coefficient times ``log pi - log pi_ref``, for algorithms that charge the reward with it.
        """
        raise NotImplementedError

    def _reference_log_probs(self, sequences: Sequences) -> torch.Tensor:
        """``[B, T]`` on the CPU, on the support and at the temperature of the policy."""
        return self._log_probs(sequences, self._reference_backbone)

    @torch.no_grad()
    def _log_probs(self, sequences: Sequences, backbone: Backbone | None = None) -> torch.Tensor:
        """``[B, T]`` on the CPU, without gradients; of the policy, or of another model."""
        found = torch.zeros_like(sequences.log_probs)
        for rows in sequences.passes(2 * self.micro_batch_tokens):  # without gradients there is more room
            batch = sequences.select(rows).to(self.device)
            log_probs, _, _ = self.policy.evaluate_sequences(batch, self.decoding.temperature, backbone=backbone)
            found[rows, found.shape[1] - log_probs.shape[1] :] = log_probs.cpu()
        return found

    def _now(self, schedule: float | Schedule) -> float:
        """A schedule's value at the present progress."""
        return FloatSchedule(schedule)(self._current_progress_remaining)


def _limits_of(env: VecEnv) -> Limits | None:
    return Limits.of(env.get_attr("setting", indices=0)[0]) if env.has_attr("setting") else None
