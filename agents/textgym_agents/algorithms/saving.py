"""Saving, loading and exact resuming of algorithms: settings as JSON, tensors as safetensors, nobody's code."""

from __future__ import annotations

import io
import pathlib
import warnings
from collections import deque
from collections.abc import Container, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv
from transformers import PreTrainedModel

from textgym_agents.algorithms.checkpoint import (
    Checkpoint,
    CheckpointError,
    flatten_optimizer,
    from_json,
    read_checkpoint,
    to_json,
    unflatten_optimizer,
    write_checkpoint,
)
from textgym_agents.algorithms.kl import KLController
from textgym_agents.algorithms.options import arguments_of
from textgym_agents.models.loading import config_of, model_from_config
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.decoding import Limits

Self = TypeVar("Self", bound="SavedAlgorithm")


class Stateful(Protocol):
    """Something that consists of named tensors: a model, a replay buffer."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors."""

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], /) -> Any:
        """Takes what :meth:`state_dict` gave."""


class SavedAlgorithm(OnPolicyAlgorithm):
    """What of an on-policy text algorithm has to do with files; see :class:`TextAlgorithm` for the rest."""

    policy: LMPolicy  # type: ignore[assignment]
    reference: PreTrainedModel | None
    kl: KLController
    ref_model: str | PreTrainedModel | None
    generator: torch.Generator
    limits: Limits | None
    _rollout_start: dict[str, Any] | None
    _env_states: list[dict[str, Any]] | None  # to be put back when a loaded training goes on

    def _hold_to(self, reference: PreTrainedModel) -> None:
        raise NotImplementedError

    def _follow_schedules(self) -> None:
        raise NotImplementedError

    def _present_model(self) -> PreTrainedModel:
        raise NotImplementedError

    def _models(self) -> Mapping[str, Stateful]:
        """Other models than the policy's, and what else consists of tensors, by name; all of it belongs to a checkpoint."""
        reference = self._own_reference()
        return {} if reference is None else {"reference": reference}

    def _own_reference(self) -> PreTrainedModel | None:
        """The reference, if there is one and its weights are not the policy's, without the adapters."""
        if self.reference is None or self.policy.lora is None:
            return self.reference
        shared = {id(weight) for weight in self.policy.model.parameters()}
        return None if any(id(weight) in shared for weight in self.reference.parameters()) else self.reference

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
        names = [n for n in arguments_of(type(self)) if n not in _NOT_STORED and n not in set(exclude or [])]
        optimizer, optimizer_rest = flatten_optimizer(self.policy.optimizer.state_dict())
        tensors = {"policy": self.policy.state_dict(), "optimizer": optimizer, "random": progress.pop("random")}
        tensors |= {name: model.state_dict() for name, model in self._models().items()}
        assert self.limits is not None
        config = {
            "algorithm": type(self).__name__,
            "policy": self.policy_class.__name__,
            "hyperparameters": {name: to_json(getattr(self, name)) for name in names},
            "policy_kwargs": to_json({k: v for k, v in self.policy_kwargs.items() if k != "model"}),
            "model_config": config_of(self.policy.model),
            "reference_config": None if (reference := self._own_reference()) is None else config_of(reference),
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
        for name, other in model._models().items():
            if name in checkpoint.tensors and (name != "reference" or stored_reference is not None):
                other.load_state_dict(checkpoint.tensors[name])
        if model.reference is not None and stored_reference is None and given.get("ref_model") is None:
            model._hold_to(model._present_model())  # there was no penalty before: from now on, to this
        model._restore(config["progress"], checkpoint.tensors["random"], given)
        return model

    def _restore(self, progress: dict[str, Any], random: dict[str, torch.Tensor], given: Container[str]) -> None:
        self.num_timesteps, self._n_updates = progress["num_timesteps"], progress["n_updates"]
        self._current_progress_remaining = progress["progress_remaining"]
        self.ep_info_buffer = deque(progress["ep_infos"], maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(progress["ep_successes"], maxlen=self._stats_window_size)
        if "kl_coef" not in given:
            self.kl.coef = progress["kl_coef"]
        self._follow_schedules()
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


def _get_states(env: VecEnv) -> list[dict[str, Any]] | None:
    return env.env_method("get_state") if env.has_attr("get_state") else None


def put_states(env: VecEnv, states: list[dict[str, Any]]) -> None:
    """Puts back the states of the environments' generators; warns if there are not as many environments as there were."""
    if len(states) != env.num_envs:
        warnings.warn(
            f"The saved training had {len(states)} environments, this one has {env.num_envs}: it goes on with other prompts",
            stacklevel=2,
        )
        return
    for slot, state in enumerate(states):
        env.env_method("set_state", state, indices=[slot])
