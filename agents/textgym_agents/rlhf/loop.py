"""Reinforcement learning from human feedback, round by round: sample, rate, train a reward model, optimise, measure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import Logger
from transformers import PreTrainedModel

from textgym.rewards import RewardModel
from textgym_agents.algorithms.base import TextAlgorithm
from textgym_agents.algorithms.registry import ALGORITHMS, load_algorithm
from textgym_agents.models.loading import load_model, policy_name_for
from textgym_agents.rlhf.candidates import draw_prompts, sample_candidates
from textgym_agents.rlhf.files import (
    RLHFFolder,
    RoundFolder,
    read_json,
    read_points,
    write_json,
    write_lines,
    write_points,
)  # fmt: skip
from textgym_agents.rlhf.judgements import (
    against_truth,
    held_out_prompts,
    questions,
    read_lines,
    read_ratings,
    train_reward_model,
)  # fmt: skip
from textgym_agents.rlhf.optimise import Judge, MeasureCallback, conclusions
from textgym_agents.rlhf.rater import SimulatedRaters, agreement, records_of
from textgym_agents.rlhf.report import write_reports
from textgym_agents.rlhf.settings import RLHFSettings
from textgym_agents.runs.callbacks import CsvLog, Observer, ObserverLog
from textgym_agents.runs.evaluation import held_out, setting_of, write
from textgym_agents.vec_env import vectorised

_EVALUATION_SEED = 0  # of held-out prompts: the same in all runs, so that runs compare


@dataclass(frozen=True)
class Outcome:
    """How far a run came.

    Attributes:
        folder: Its files.
        finished: Whether all rounds are done; else a person has to rate.
        rounds: Results of the finished rounds, as in their ``evaluation.json``.
        rate_command: What the person types, if not finished.
        left: Questions that are not answered yet, if not finished.
    """

    folder: RLHFFolder
    finished: bool
    rounds: list[dict[str, Any]]
    rate_command: str = ""
    left: int = 0


class RLHFRun:
    """A run in a folder. Every stage's output is a file; what is there already is not done again."""

    def __init__(self, folder: str | Path, settings: RLHFSettings, observer: Observer | None = None) -> None:
        """Args: folder: New, empty, or that of this run. settings: Of the run. observer: Is told how it goes.

        Raises:
            TextGymError: The folder has something else, or a run with other settings.
            ModelError: The policy's model cannot be loaded.
        """
        self.folder, self.settings, self.observer = RLHFFolder(folder), settings, observer or Observer()
        self.train = setting_of(settings.env_id, split="train", **settings.env_kwargs)
        self.dev = setting_of(settings.env_id, split="dev", **settings.env_kwargs)
        self.examples = held_out(self.dev, settings.eval_prompts, _EVALUATION_SEED)
        self.dev.encode_prompts(self.examples)  # a prompt that is too long is reported before anything is written
        self.reference  # noqa: B018  # and so is a model that cannot be loaded
        self.folder.begin(settings)

    def run(self, partial: bool = False) -> Outcome:
        """Does all that is not done yet, as far as it can.

        Args:
            partial: Whether ratings of a person count as complete however few there are.

        Raises:
            TextGymError: Ratings are of a wrong kind, the reward failed, or a training cannot go on.
        """
        results: list[dict[str, Any]] = []
        if not self.folder.base.is_file():
            self.observer.phase("Measuring the untrained policy", len(self.examples))
            samples = write(self._policy(1), self.dev, self.examples, _EVALUATION_SEED, progress=self.observer.advance)
            self.folder.write_base((s.prompt, s.transcript, s.reward) for s in samples)
        for number in range(1, self.settings.rounds + 1):
            files = self.folder.round(number)
            if not files.candidates.is_file():
                self._sample(number, files)
            if left := self._rate(number, files, partial):
                command = files.rate_command(self.settings.mode)
                return Outcome(self.folder, False, results, command, left)
            if not files.measured.is_file():
                self._train_reward_model(number, files)
            if not files.evaluation.is_file():
                self._optimise(number, files)
            results.append(read_json(files.evaluation))
            points = [p for n in range(1, number + 1) for p in read_points(self.folder.round(n).curve)]
            write_points(self.folder.curve, points)
            write_reports(self.folder, self.settings, number)
        return Outcome(self.folder, True, results)

    @cached_property
    def reference(self) -> PreTrainedModel:
        """The model of the very start."""
        encoder_decoder = policy_name_for(self.settings.model) == "Seq2SeqLMPolicy"
        return load_model(self.settings.model, encoder_decoder)

    def _sample(self, number: int, files: RoundFolder) -> None:
        examples = draw_prompts(self.train, self.settings.prompts, [self.settings.seed, number])
        self.observer.phase(f"Round {number}: sampling candidates", len(examples))
        seed = self.settings.seed * 1000 + number  # not those of another run's rounds, as long as it has below 1000
        files.write_candidates(sample_candidates(self._policy(number), self.train, examples, seed))

    def _rate(self, number: int, files: RoundFolder, partial: bool) -> int:
        """Ratings of the candidates; returns how many are still wanted of a person."""
        settings, candidates = self.settings, files.read_candidates()
        if settings.rater == "human":
            answers = read_lines(files.ratings) if files.ratings.is_file() else []
            answered = len({str(answer.get("id", i)) for i, answer in enumerate(answers)})
            left = questions(candidates, settings.mode) - answered
            return 0 if left <= 0 or (partial and answered) else left
        if not files.ratings.is_file():
            first = [reward for item in self.folder.round(1).read_candidates() for reward in item.rewards]
            mean, std = float(np.mean(first)), float(np.std(first))  # one scale for all rounds, whose ratings are mixed
            raters = SimulatedRaters(settings.raters, settings.noise, settings.disagreement, settings.seed)
            votes = raters.rate(candidates, mean, std, number)
            write_json(files.agreement, agreement(candidates, votes))
            write_lines(files.ratings, records_of(candidates, votes, settings.mode))
        return 0

    def _train_reward_model(self, number: int, files: RoundFolder) -> None:
        self.observer.phase(f"Round {number}: training the reward model", 1)
        rounds = [self.folder.round(n) for n in range(1, number + 1)]
        records = [record for each in rounds for record in read_ratings(each.ratings, self.settings.mode)]
        candidates = [each.read_candidates() for each in rounds]
        prompts = [[item.prompt for item in some] for some in candidates]
        held = held_out_prompts(prompts, self.settings.held_out, self.settings.seed)
        seed = self.settings.seed + number
        found, trained, measured = train_reward_model(records, held, self.settings, seed, files.reward_model)
        texts = {
            (item.prompt, text): reward
            for some in candidates
            for item in some
            if item.prompt in held
            for text, reward in zip(item.completions, item.rewards, strict=True)
        }
        truth = against_truth(self._reward(files), [(*pair, reward) for pair, reward in texts.items()])
        write_json(
            files.measured,
            {"trained_on": trained, "measured_on": measured, "ratings": found.to_json(), "truth": truth},
        )

    def _optimise(self, number: int, files: RoundFolder) -> None:
        settings, proxy = self.settings, self._reward(files)
        files.progress.unlink(missing_ok=True)  # of a stage that was interrupted
        kwargs = {**self._needed, **settings.env_kwargs, "split": "train", "reward": proxy}
        env = vectorised(settings.env_id, settings.algorithm_settings()["n_envs"], **kwargs)
        model = self._algorithm(number, env)
        model.set_logger(Logger(str(files.path), [CsvLog(files.progress), ObserverLog(self.observer)]))
        base = self.folder.read_base()
        reference = self.reference.to(model.device)  # type: ignore[arg-type]
        judge = Judge(self.dev, self.examples, reference, proxy, base, number)
        self.observer.phase(f"Round {number}: optimising the policy", settings.timesteps)
        callback = MeasureCallback(judge, settings.timesteps / settings.points, self.observer)
        callback.found.append(judge.measure(model, 0))
        model.learn(settings.timesteps, callback=callback)
        callback.found.append(judge.measure(model, model.num_timesteps))
        model.save(files.policy)
        write_points(files.curve, [measured.point for measured in callback.found])
        truth = against_truth(proxy, callback.found[-1].rated)
        write_json(files.evaluation, {**conclusions(callback.found), "truth_after": truth})

    @property
    def _needed(self) -> dict[str, Any]:
        return ALGORITHMS[self.settings.algo].needed_env_kwargs(self.settings.algorithm_settings())

    def _reward(self, files: RoundFolder) -> RewardModel:
        return RewardModel(files.reward_model, device=None if self.settings.device == "auto" else self.settings.device)

    def _policy(self, number: int) -> Any:
        """The policy that a round starts from."""
        kwargs = {**self._needed, **self.settings.env_kwargs, "split": "train"}
        fewest = self._needed.get("group_size", 1)
        return self._algorithm(number, vectorised(self.settings.env_id, fewest, **kwargs)).policy

    def _algorithm(self, number: int, env: Any) -> TextAlgorithm:
        """The algorithm at the beginning of a round; it is held to the model of the very start in all of them."""
        settings, seed = self.settings, self.settings.seed + number
        if number > 1:
            return load_algorithm(self.folder.round(number - 1).policy, env, settings.device, seed=seed)
        options = {name: value for name, value in settings.algorithm_settings().items() if name != "n_envs"}
        options["policy_kwargs"] = {**(options.get("policy_kwargs") or {}), "model": settings.model}
        name = policy_name_for(settings.model)
        return ALGORITHMS[settings.algo](name, env, seed=seed, device=settings.device, **options)
