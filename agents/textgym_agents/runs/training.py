"""A training run in a folder: log, samples, checkpoints, evaluation before and after, report; can be stopped and resumed."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger
from transformers import PreTrainedModel

from textgym.core import Example, TextGymError
from textgym.envs.episodes import Setting
from textgym.prompts import FixedPrompts
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.registry import ALGORITHMS, check_device, hyperparameters_of, load_algorithm
from textgym_agents.models.loading import load_model, policy_name_for
from textgym_agents.runs.callbacks import CsvLog, Observer, ObserverLog, RunCallback, StopSignals, TensorBoardLog
from textgym_agents.runs.evaluation import Evaluation, evaluate, held_out, setting_of, write
from textgym_agents.runs.folder import RunConfig, RunError, RunFolder
from textgym_agents.runs.inspection import record_episodes
from textgym_agents.runs.recipes import recipe_for
from textgym_agents.runs.validation import Validation
from textgym_agents.vec_env import vectorised

SAMPLED_PROMPTS = 12
RECORDED_EPISODES = 8
_SAMPLED_TIMES = 4  # during training, evenly; and before it
_EVALUATION_SEED = 0  # of held-out prompts and their completions: the same in all runs, so that runs compare
_VALIDATION_SEED = 1  # of those that choose a checkpoint: others
_VERSIONS = ("textgym", "torch", "transformers", "stable-baselines3", "gymnasium", "numpy", "tokenizers")


def make_config(
    env_id: str,
    algo: str = "ppo",
    *,
    total_timesteps: int | None = None,
    seed: int = 0,
    model: str = "bundled",
    hyperparameters: Mapping[str, Any] | None = None,
    checkpoint_every: int | None = None,
    **settings: Any,
) -> RunConfig:
    """The configuration of a run: what is given, and defaults from :mod:`textgym_agents.runs.recipes` for the rest.

    Args:
        env_id: Environment id.
        algo: See :data:`ALGORITHMS`.
        total_timesteps: Tokens to train for.
        seed: Of everything random.
        model: ``"bundled"``, a folder, a Hub id.
        hyperparameters: Keyword arguments of the algorithm that differ from the defaults.
        checkpoint_every: Tokens; ``None``: a tenth of the run.
        settings: Other fields of :class:`RunConfig`.

    Raises:
        ValueError, TypeError: An argument is bad; an unknown hyperparameter is named with the known ones.
    """
    recipe = recipe_for(env_id, algo, model)
    total = (recipe.total_timesteps or 1) if total_timesteps is None else total_timesteps
    every = max(1, total // 10) if checkpoint_every is None and isinstance(total, int) else checkpoint_every
    return RunConfig(
        env_id=env_id,
        algo=algo,
        total_timesteps=total,
        seed=seed,
        hyperparameters=hyperparameters_of(algo, hyperparameters or {}, recipe.hyperparameters),
        model={"name": model},
        checkpoint_every=every,
        versions={"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}},
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        **settings,
    )


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        folder: The run's.
        finished: Whether training came to its end; else it was interrupted and can be resumed.
        timesteps: Tokens trained so far.
        best: Tokens that the resulting policy was trained for, fewer where a validation score has chosen an earlier one.
        seconds: Spent training in this session, evaluations left out.
        trained: Tokens trained in this session.
        before: Evaluation of the untrained policy, as in ``evaluation.json``.
        after: Evaluation of the trained one; ``None`` unless finished.
    """

    folder: RunFolder
    finished: bool
    timesteps: int
    best: int
    seconds: float
    trained: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class TrainingRun:
    """A run, ready to go: made by :meth:`new` or :meth:`resume`, done by :meth:`run`."""

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        model: TextAlgorithm,
        setting: Setting,
        observer: Observer,
    ) -> None:
        self.folder, self.config, self.model, self.observer = folder, config, model, observer
        self.setting = setting  # of the held-out prompts
        self._base: PreTrainedModel | None = None
        self.examples = held_out(setting, config.eval_episodes, _EVALUATION_SEED)
        setting.encode_prompts(self.examples)  # a prompt that is too long is reported before anything is written
        self.shown = self.examples[:: max(1, len(self.examples) // SAMPLED_PROMPTS)][:SAMPLED_PROMPTS]
        self.validation: Validation | None = None
        if config.patience is not None:
            self._choosing = self._validation_prompts()
            self.validation = Validation(folder, config.patience, self._validation_score)

    @classmethod
    def new(cls, path: str | Path, config: RunConfig, observer: Observer | None = None) -> TrainingRun:
        """Prepares a new run. Nothing is written unless everything could be made.

        Raises:
            RunError: The folder is not empty.
            TextGymError, ValueError, TypeError: An argument of the environment, the model or the algorithm is bad.
        """
        folder, observer = RunFolder(path), observer or Observer()
        folder.check_free()
        run = cls._begin(folder, config, observer)
        train = run.model.env.get_attr("setting")[0].prompts if run.model.env is not None else None
        if isinstance(train, FixedPrompts):
            known = {e.prompt for e in train.examples}
            shared = sum(e.prompt in known for e in run.examples)
            if shared:
                hint = "give a file for each split ('name.{split}.jsonl.gz'), records with a 'split', or --eval-prompts"
                note = f"{shared} of {len(run.examples)} held-out prompts are also training prompts"
                observer.note(note if shared < len(run.examples) / 2 else f"{note}; {hint}")
        if config.patience is not None:
            known = {e.prompt for e in run.examples}
            if isinstance(run.setting.prompts, FixedPrompts) and all(e.prompt in known for e in run._choosing):
                observer.note(
                    f"All {len(known)} held-out prompts are evaluated, so they also choose the checkpoint, and the evaluation "
                    "will flatter; with fewer --eval-episodes others are left for that"
                )
        folder.write_config(config)
        return run

    @classmethod
    def resume(
        cls,
        path: str | Path,
        observer: Observer | None = None,
        *,
        total_timesteps: int | None = None,
        patience: int | None = None,
        device: str | None = None,
    ) -> TrainingRun:
        """Prepares to go on with a run from its newest checkpoint (from the beginning, if there is none).

        Args:
            path: The run's folder.
            observer: Is told how it goes.
            total_timesteps: A new end, to train longer than first planned.
            patience: Another patience than before.
            device: Another device than before.

        Raises:
            RunError: Not the folder of a run; or it is to go on, but its patience has ended it.
            CheckpointError: The checkpoint is damaged.
        """
        folder, observer = RunFolder(path), observer or Observer()
        config = folder.read_config()
        if total_timesteps is not None:
            config.total_timesteps = total_timesteps
        config.patience = config.patience if patience is None else patience
        config.device = device or config.device
        config.__post_init__()
        timesteps, checkpoint = (folder.checkpoints() or [(0, folder.path)])[-1]
        folder.rewind(timesteps)
        if not timesteps:  # nothing learned yet
            return cls._begin(folder, config, observer)
        grouped = ALGORITHMS[config.algo].needed_env_kwargs(config.hyperparameters)
        kwargs = {**grouped, **config.env_kwargs, "split": "train"}
        env = vectorised(config.env_id, config.hyperparameters["n_envs"], **kwargs)
        model = load_algorithm(checkpoint, env, config.device)
        run = cls(folder, config, model, setting_of(config.env_id, **config.eval_kwargs), observer)
        impatient = run.validation is not None and run.validation.over and timesteps < config.total_timesteps
        if impatient and total_timesteps is not None:
            raise RunError(
                f"Expected a patience of more than {config.patience} to train {folder.path} for longer, which has ended as no "
                "checkpoint was better: give --patience too"
            )
        state = "Resuming" if run.goes_on else "Training is complete in"
        why = f", ended by its patience of {config.patience}" if impatient else ""
        observer.note(f"{state} {folder.path}: {timesteps:,} of {config.total_timesteps:,} tokens{why}")
        folder.write_config(config)
        return run

    @property
    def goes_on(self) -> bool:
        """Whether there is anything left to train."""
        over = self.validation is not None and self.validation.over
        return self.model.num_timesteps < self.config.total_timesteps and not over

    @classmethod
    def _begin(cls, folder: RunFolder, config: RunConfig, observer: Observer) -> TrainingRun:
        check_device(config.device)
        settings = dict(config.hyperparameters)
        settings["policy_kwargs"] = {**(settings.get("policy_kwargs") or {}), "model": config.model["name"]}
        setting = setting_of(config.env_id, **config.eval_kwargs)
        model = ALGORITHMS[config.algo](
            policy_name_for(config.model["name"]),
            config.env_id,
            env_kwargs={**config.env_kwargs, "split": "train"},
            seed=config.seed,
            device=config.device,
            **settings,
        )
        config.model = {"name": config.model["name"], "parameters": model.policy.model.num_parameters()}
        return cls(folder, config, model, setting, observer)

    def run(self) -> Result:
        """Does, or goes on with, all of it.

        Raises:
            KeyboardInterrupt: A signal came twice, or while no training was going on; the run can be resumed.
            TextGymError: The reward failed, or training cannot go on.
        """
        with StopSignals(lambda: self.observer.note("Stopping at the next step (once more: at once)")) as signals:
            stored = self.folder.read_json("evaluation.json") or {}
            before, started = stored.get("before"), self.model.num_timesteps
            if before is None and not started:
                self.folder.rewind(-1)
                self._write_samples(0)
                before = self._evaluate("Evaluating the untrained policy").to_json()
                self.folder.write_json("evaluation.json", {"before": before})
            seconds = self._learn(signals) if self.goes_on else 0.0
            done = self.folder.checkpoints()[-1][0]
            if self.validation is not None and not signals.requested:
                self.validation.add(done)  # a signal during the last update has left it without a score
            best = self._result()[0]
            after = stored.get("after") if stored.get("timesteps") == done else None
            if signals.requested:
                self._report()
            elif after is None:
                after = self._finish(before)
        trained = max(0, done - started)
        return Result(self.folder, not signals.requested, done, best, seconds, trained, before, after)

    def _result(self) -> tuple[int, Path]:
        """The checkpoint that the run is for, and its tokens."""
        return self.folder.checkpoints()[-1] if self.validation is None else self.validation.best_checkpoint()

    def _learn(self, signals: StopSignals) -> float:
        config, model = self.config, self.model
        self.folder.model.unlink(missing_ok=True)  # of a run that is being extended; the checkpoint stays
        started, began = model.num_timesteps, time.monotonic()
        writers: list[KVWriter] = [CsvLog(self.folder.progress), ObserverLog(self.observer)]
        if config.tensorboard:
            writers.append(TensorBoardLog(self.folder.path, started))
        logger = Logger(str(self.folder.path), writers)
        model.set_logger(logger)
        every = config.total_timesteps / _SAMPLED_TIMES
        callback = RunCallback(
            self.folder, self.observer, signals, config.checkpoint_every, every, self._write_samples, self.validation
        )
        self.observer.phase("Training", config.total_timesteps, started)
        signals.patient = True
        try:
            model.learn(config.total_timesteps - started, callback=callback, reset_num_timesteps=started == 0)
            if not signals.requested:
                callback.validate()
            callback.save()
        except TextGymError as error:
            last = self.folder.checkpoints()
            hint = f"textgym train --resume {self.folder.path}"
            where = f"the last good checkpoint is {last[-1][1]} ({hint})" if last else "there is no checkpoint yet"
            error.args = (f"{error}; {where}",)
            raise
        finally:
            signals.patient = False
            logger.close()
        return time.monotonic() - began

    def _finish(self, before: dict[str, Any] | None) -> dict[str, Any]:
        newest = self.folder.checkpoints()[-1][0]
        timesteps, checkpoint = self._result()
        self.folder.publish(checkpoint)
        if timesteps != newest:
            self.observer.note(
                f"The checkpoint of {timesteps:,} tokens was best on the validation prompts: it is the result"
            )
            self.model.set_parameters(checkpoint, device=self.model.device)
        evaluation = self._evaluate("Evaluating the trained policy")
        self._write_samples(timesteps)
        episodes = self.examples[:RECORDED_EPISODES]
        env = gym.make(self.config.env_id, disable_env_checker=True, **self.config.eval_kwargs)
        records = record_episodes(self.model, env, episodes, _EVALUATION_SEED, reference=self._reference())
        self.folder.write_json("episodes.json", records)
        after = evaluation.to_json()
        self.folder.write_json(
            "evaluation.json", {"before": before, "after": after, "timesteps": newest, "best": timesteps}
        )
        self._report()
        return after

    def _evaluate(self, title: str) -> Evaluation:
        self.observer.phase(title, len(self.examples))
        return evaluate(
            self.model,
            self.setting,
            seed=_EVALUATION_SEED,
            examples=self.examples,
            reference=self._reference(),
            progress=self.observer.advance,
        )

    def _validation_prompts(self) -> list[Example]:
        """Other prompts than those of the evaluation, as long as there are others."""
        prompts = self.setting.prompts
        if isinstance(prompts, FixedPrompts):
            evaluated = {e.prompt for e in self.examples}
            others = FixedPrompts(tuple(e for e in prompts.examples if e.prompt not in evaluated) or prompts.examples)
            return held_out(replace(self.setting, prompts=others), self.config.eval_episodes, _VALIDATION_SEED)
        return held_out(self.setting, self.config.eval_episodes, _VALIDATION_SEED)

    def _validation_score(self) -> float:
        return float(np.mean([s.reward for s in write(self.model, self.setting, self._choosing, _VALIDATION_SEED)]))

    def _reference(self) -> PreTrainedModel | None:
        """The model that training started from, also where no penalty keeps it in memory."""
        if self.model.reference is None and self._base is None:
            base = load_model(self.config.model["name"], self.model.policy.encoder_decoder)
            self._base = base.to(self.model.device)  # type: ignore[arg-type]
        return self.model.reference or self._base

    def _write_samples(self, timesteps: int) -> None:
        samples = write(self.model, self.setting, self.shown, _EVALUATION_SEED)
        self.folder.append_samples(
            {
                "timesteps": timesteps,
                "prompt": s.prompt,
                "completion": s.transcript,
                "reward": round(s.reward, 6),
                "parts": {name: round(score, 6) for name, score in s.parts.items()},
            }
            for s in samples
        )

    def _report(self) -> None:
        try:
            from textgym_agents.report import write_learning_curve, write_report  # lazily: it draws

            write_learning_curve(self.folder.path)
            write_report(self.folder.path)
        except Exception as error:  # a run of hours must not fail at its picture
            self.observer.note(f"The report could not be written: {type(error).__name__}: {error}")
