"""What on-policy algorithms over text share: rollouts of whole episodes, the reference model, saving and exact resuming."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pathlib
import warnings
from collections import deque
from collections.abc import Container, Iterable
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
from stable_baselines3.common.utils import check_for_correct_spaces, safe_mean
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from transformers import PreTrainedModel

from textgym.core import TextGymError, expected, number, whole_number
from textgym_agents.buffers import SequenceBuffer, Sequences
from textgym_agents.checkpoint import (
    Checkpoint,
    CheckpointError,
    flatten_optimizer,
    from_json,
    read_checkpoint,
    to_json,
    unflatten_optimizer,
    write_checkpoint,
)
from textgym_agents.decoding import Limits
from textgym_agents.kl import KLController
from textgym_agents.losses import gae
from textgym_agents.models import check_fits, config_of, load_model, model_from_config
from textgym_agents.policies import CausalLMPolicy
from textgym_agents.rollouts import play_episodes
from textgym_agents.sampling import Decoding
from textgym_agents.vec_env import GymVecEnv, vectorised

Self = TypeVar("Self", bound="OnPolicyTextAlgorithm")


class TrainingError(TextGymError, RuntimeError):
    """Training cannot go on."""


class OnPolicyTextAlgorithm(OnPolicyAlgorithm):
    """An SB3 on-policy algorithm whose unit of work is the episode.

    A rollout plays one whole episode in every environment, and again until ``n_steps * n_envs`` tokens are there. Subclasses
    define ``train`` on ``self.rollout_buffer``.

    Attributes:
        reference: The model that the policy is held to; ``None`` without a penalty.
        kl: The coefficient of the penalty and its controller.
        generator: Source of all randomness of rollouts and minibatches.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CausalLMPolicy": CausalLMPolicy}
    policy: CausalLMPolicy  # type: ignore[assignment]
    rollout_buffer: SequenceBuffer
    reference: PreTrainedModel | None

    def __init__(
        self,
        policy: str | type[CausalLMPolicy],
        env: Any,
        *,
        n_envs: int,
        learning_rate: float | Schedule,
        n_steps: int,
        gamma: float,
        gae_lambda: float,
        ent_coef: float,
        vf_coef: float,
        max_grad_norm: float,
        kl_coef: float,
        kl_target: float | None,
        kl_horizon: int,
        ref_model: str | PreTrainedModel | None,
        temperature: float,
        top_k: int,
        top_p: float,
        env_kwargs: dict[str, Any] | None,
        stats_window_size: int,
        tensorboard_log: str | None,
        policy_kwargs: dict[str, Any] | None,
        verbose: int,
        seed: int | None,
        device: torch.device | str,
        _init_setup_model: bool,
    ) -> None:
        if not isinstance(policy, str) and not (inspect.isclass(policy) and issubclass(policy, CausalLMPolicy)):
            raise TypeError(expected("policy", policy, "'CausalLMPolicy' or a subclass of CausalLMPolicy"))
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise ValueError(expected("policy", policy, f"one of {sorted(self.policy_aliases)} or a class"))
        for name, count in (("n_envs", n_envs), ("n_steps", n_steps), ("stats_window_size", stats_window_size)):
            whole_number(name, count, 1)
        for name, value, low, high in (
            ("gamma", gamma, 0, 1),
            ("gae_lambda", gae_lambda, 0, 1),
            ("ent_coef", ent_coef, -math.inf, math.inf),
            ("vf_coef", vf_coef, 0, math.inf),
        ):
            number(name, value, low, high)
        if max_grad_norm != math.inf:
            number("max_grad_norm", max_grad_norm, 0, math.inf, above=True, wanted="a number above 0, or inf")
        if not callable(learning_rate):
            number("learning_rate", learning_rate, 0, math.inf, wanted="a number of at least 0 or a schedule")
        if seed is not None and whole_number("seed", seed, 0) >= 2**32:
            raise ValueError(expected("seed", seed, "None or a whole number below 2**32"))
        if policy_kwargs is not None and not isinstance(policy_kwargs, dict):
            raise TypeError(expected("policy_kwargs", policy_kwargs, "a dict, such as {'model': 'bundled'}, or None"))
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.decoding = Decoding(temperature, top_k, top_p)
        self.kl_coef, self.kl_target, self.kl_horizon, self.ref_model = kl_coef, kl_target, kl_horizon, ref_model
        self.kl = KLController(kl_coef, kl_target, kl_horizon)
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
        self.policy = self.policy.to(self.device)
        self.policy.generator = predicting
        self.reference = None
        if self.kl_coef > 0:
            reference = self.policy.model if self.ref_model is None else load_model(self.ref_model)
            self._hold_to(copy.deepcopy(reference) if reference is self.policy.model else reference)

    def _hold_to(self, reference: PreTrainedModel) -> None:
        """Makes a model the reference: it must fit the environment, and from now on it does not change."""
        check_fits(reference, self.policy.vocab_size, self.observation_space["input_ids"].shape[0])  # type: ignore[index]
        self.reference = reference.to(self.device).requires_grad_(False).eval()  # type: ignore[arg-type]

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
        """The next token; see :meth:`CausalLMPolicy.predict`. What is not given is as in training.

        ``deterministic=True`` is greedy decoding; ``num_beams`` above 1 is beam search.
        """
        decoding = Decoding(
            self.temperature if temperature is None else temperature,
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
        if self._env_states is not None:
            _put_states(env, self._env_states)
            self._env_states = None
        self.policy.set_training_mode(False)
        self._rollout_start = self._progress()
        rollout_buffer.reset()
        callback.on_rollout_start()
        final_infos: list[dict[str, Any]] = []

        def on_step(tokens: int, step: dict[str, Any]) -> bool:
            self.num_timesteps += tokens
            callback.update_locals(step)
            slots = step["slots"]
            infos, dones = [step["infos"][slot] for slot in slots], step["dones"][slots]
            self._update_info_buffer(infos, dones)
            final_infos.extend(info for info, done in zip(infos, dones, strict=True) if done)
            return callback.on_step()

        while rollout_buffer.num_tokens < n_rollout_steps * env.num_envs:
            episodes = play_episodes(env, self.policy, self.decoding, self.generator, on_step)
            if episodes is None:
                return False
            rollout_buffer.add_episodes(episodes)
        self._score(rollout_buffer)
        for name in sorted({key for info in final_infos for key in info if key.startswith("reward/")}):
            self.logger.record(f"rollout/{name}", safe_mean([info[name] for info in final_infos if name in info]))
        callback.update_locals({"rollout_buffer": rollout_buffer})
        callback.on_rollout_end()
        return True

    def _score(self, buffer: SequenceBuffer) -> None:
        """Completes the buffer: reference log-probabilities, penalised rewards, advantages."""
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
        advantages, returns = gae(
            sequences.rewards - penalty,
            sequences.values,
            sequences.action_mask,
            sequences.last_values,
            self.gamma,
            self.gae_lambda,
        )
        buffer.sequences = sequences.with_(advantages=advantages, returns=returns)

    @torch.no_grad()
    def _reference_log_probs(self, sequences: Sequences, batch_size: int = 64) -> torch.Tensor:
        """``[B, T]`` on the CPU, in one teacher-forced pass, on the support and at the temperature of the policy."""
        found = sequences.log_probs.clone()
        for rows in torch.arange(len(sequences)).split(batch_size):
            batch = sequences.select(rows).to(self.device)
            columns = batch.action_mask.shape[1]
            log_probs, _, _ = self.policy.evaluate_sequences(
                batch.input_ids,
                batch.attention_mask,
                columns,
                batch.support(self.policy.vocab_size),
                self.decoding.temperature,
                model=self.reference,
            )
            chosen = torch.where(batch.action_mask, log_probs, torch.zeros_like(log_probs)).cpu()
            found[rows, found.shape[1] - columns :] = chosen
        return found

    def _finished_training(self) -> None:
        """To be called at the end of ``train``: from now on a checkpoint continues behind this rollout, not before it."""
        self._rollout_start = None

    # ---- saving and loading -----------------------------------------------------------------------------------------

    def _progress(self) -> dict[str, Any]:
        """Where training stands, between two rollouts: counters as JSON, random states as tensors under ``random``."""
        return {
            "num_timesteps": self.num_timesteps,
            "n_updates": self._n_updates,
            "progress_remaining": self._current_progress_remaining,
            "kl_coef": self.kl.coef,
            "ep_infos": [
                {k: float(info[k]) for k in ("r", "l", "t") if k in info} for info in self.ep_info_buffer or []
            ],
            "ep_successes": [float(s) for s in self.ep_success_buffer or []],
            # before the first reset the environments' generators are not yet those of the seed
            "env_states": None if self.env is None or self._last_obs is None else _get_states(self.env),
            "random": {"rollouts": self.generator.get_state(), "predict": self.policy.generator.get_state()},  # type: ignore[union-attr]
        }

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Writes settings (JSON) and weights (safetensors) into one zip, atomically.

        A file saved in the middle of a rollout continues from the beginning of that rollout, so that a resumed training equals
        the uninterrupted one.

        Args:
            path: ``.zip`` is added unless it ends so.
            exclude: Hyperparameters to leave out; their defaults hold after loading.
            include: Not used (SB3's signature).

        Raises:
            CheckpointError: The settings cannot be written as JSON.
        """
        progress = dict(self._rollout_start or self._progress())
        if self._env_states is not None:
            progress["env_states"] = self._env_states
        names = [
            n
            for n in inspect.signature(type(self).__init__).parameters
            if n not in _NOT_STORED and n not in set(exclude or [])
        ]
        optimizer, optimizer_rest = flatten_optimizer(self.policy.optimizer.state_dict())
        tensors = {"policy": self.policy.state_dict(), "optimizer": optimizer, "random": progress.pop("random")}
        if self.reference is not None:
            tensors["reference"] = self.reference.state_dict()
        assert self.limits is not None
        config = {
            "algorithm": type(self).__name__,
            "policy": self.policy_class.__name__,
            "hyperparameters": {name: to_json(getattr(self, name)) for name in names},
            "policy_kwargs": to_json({k: v for k, v in self.policy_kwargs.items() if k != "model"}),
            "model_config": config_of(self.policy.model),
            "reference_config": None if self.reference is None else config_of(self.reference),
            "limits": {**vars(self.limits), "forbidden": list(self.limits.forbidden)},
            "n_envs": self.n_envs,
            "stats_window_size": self._stats_window_size,
            "observation_width": self.observation_space["input_ids"].shape[0],  # type: ignore[index]
            "optimizer": optimizer_rest,
            "progress": progress,
        }
        write_checkpoint(path, Checkpoint(config, tensors))

    @classmethod
    def load(
        cls: type[Self],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: Any = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """A new algorithm from a file of :meth:`save`; nothing in the file is ever executed.

        Args:
            path: The file; ``.zip`` may be left out.
            env: An environment to go on with (not an id); without one the algorithm can predict, and ``set_env`` adds one.
                ``learn(reset_num_timesteps=False)`` continues where the saved training stood, its prompts included, if there
                are as many environments as there were.
            device: As for the constructor.
            custom_objects: Hyperparameters to use in place of the stored ones; needed for those that are functions. A
                ``kl_coef`` given so replaces the coefficient reached, a ``ref_model`` the stored reference, a ``seed`` the
                stored random states.
            print_system_info: Not used (SB3's signature).
            force_reset: Not used: every rollout starts with fresh episodes.
            kwargs: More hyperparameters to use in place of the stored ones.

        Raises:
            FileNotFoundError: No such file.
            CheckpointError: Not a file of ours, of another algorithm, or damaged.
        """
        checkpoint = read_checkpoint(path)
        config, given = checkpoint.config, {**(custom_objects or {}), **kwargs}
        if missing := {"algorithm", *_NEEDED} - set(config) | {"policy", "random"} - set(checkpoint.tensors):
            raise CheckpointError(f"Expected a saved algorithm, but {path!s} lacks {sorted(missing)}")
        if config.get("algorithm") != cls.__name__:
            raise CheckpointError(
                f"Expected a saved {cls.__name__}, actual: a saved {config.get('algorithm')!r} in {path!s}"
            )
        policy_class: Any = given.pop("policy_class", None) or cls.policy_aliases.get(config["policy"])
        if policy_class is None:
            raise CheckpointError(
                f"Expected custom_objects={{'policy_class': ...}} for the stored policy {config['policy']!r}"
            )
        settings = {
            name: from_json(name, value) for name, value in config["hyperparameters"].items() if name not in given
        }
        policy_kwargs = given.pop("policy_kwargs", None) or from_json("policy_kwargs", config["policy_kwargs"])
        settings = {"stats_window_size": config["stats_window_size"], **settings, **given}
        model = cls(policy_class, env, device=device, _init_setup_model=False, **settings)
        limits = Limits(**{**config["limits"], "forbidden": tuple(config["limits"]["forbidden"])})
        model.limits = model.limits or limits
        saved_spaces = _spaces(limits.vocab_size, config["observation_width"])
        if model.env is None:
            model.observation_space, model.action_space = saved_spaces
            model.n_envs = config["n_envs"]
        else:
            check_for_correct_spaces(model.env, *saved_spaces)
        model.policy_kwargs = {**policy_kwargs, "model": model_from_config(config["model_config"])}
        stored_reference = config["reference_config"] if given.get("ref_model") is None else None
        if stored_reference is not None:
            model.ref_model = model_from_config(stored_reference)
        model._setup_model()
        model.ref_model = None
        model.set_parameters(_parameters(checkpoint), exact_match=True, device=device)
        if model.reference is not None and stored_reference is not None:
            model.reference.load_state_dict(checkpoint.tensors["reference"])
        elif model.reference is not None and given.get("ref_model") is None:
            model._hold_to(copy.deepcopy(model.policy.model))  # there was no penalty before: from now on, to this
        model._restore(config["progress"], checkpoint.tensors["random"], given)
        return model

    def _restore(self, progress: dict[str, Any], random: dict[str, torch.Tensor], given: Container[str]) -> None:
        self.num_timesteps, self._n_updates = progress["num_timesteps"], progress["n_updates"]
        self._current_progress_remaining = progress["progress_remaining"]
        self.ep_info_buffer = deque(progress["ep_infos"], maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(progress["ep_successes"], maxlen=self._stats_window_size)
        if "kl_coef" not in given:
            self.kl.coef = progress["kl_coef"]
        if "seed" not in given:
            self._env_states = progress["env_states"]
            if len(random["rollouts"]) == len(self.generator.get_state()):  # those of a GPU do not fit a CPU
                self.generator.set_state(random["rollouts"])
                self.policy.generator.set_state(random["predict"])  # type: ignore[union-attr]

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """Sets weights and optimizer state from a file of :meth:`save` or from what ``get_parameters`` gave; see SB3."""
        if not isinstance(load_path_or_dict, dict):
            load_path_or_dict = _parameters(read_checkpoint(load_path_or_dict))
        super().set_parameters(load_path_or_dict, exact_match, device)


_NEEDED = (
    "policy",
    "hyperparameters",
    "policy_kwargs",
    "model_config",
    "reference_config",
    "limits",
    "n_envs",
    "stats_window_size",
    "observation_width",
    "optimizer",
    "progress",
)
_NOT_STORED = {
    "self",
    "policy",
    "env",
    "env_kwargs",
    "n_envs",
    "policy_kwargs",
    "device",
    "ref_model",
    "stats_window_size",
    "_init_setup_model",
}


def _parameters(checkpoint: Checkpoint) -> dict[str, Any]:
    optimizer = unflatten_optimizer(checkpoint.tensors.get("optimizer", {}), checkpoint.config["optimizer"])
    return {"policy": checkpoint.tensors["policy"], "policy.optimizer": optimizer}


def _spaces(vocab_size: int, width: int) -> tuple[spaces.Dict, spaces.Discrete]:
    masks = {name: spaces.MultiBinary(width) for name in ("attention_mask", "completion_mask")}
    observation = spaces.Dict({"input_ids": spaces.Box(0, vocab_size - 1, (width,), np.int64), **masks})
    return observation, spaces.Discrete(vocab_size)


def _limits_of(env: VecEnv) -> Limits | None:
    return Limits.of(env.get_attr("setting", indices=0)[0]) if env.has_attr("setting") else None


def _get_states(env: VecEnv) -> list[dict[str, Any]] | None:
    return env.env_method("get_state") if env.has_attr("get_state") else None


def _put_states(env: VecEnv, states: list[dict[str, Any]]) -> None:
    if len(states) != env.num_envs:
        warnings.warn(
            f"The saved training had {len(states)} environments, this one has {env.num_envs}: it goes on with other prompts",
            stacklevel=2,
        )
        return
    for slot, state in enumerate(states):
        env.env_method("set_state", state, indices=[slot])
