"""Supervised training of reward models on scores, comparisons and rankings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import textgym
from textgym.core import expected, whole_number
from textgym_agents.reward_models.batches import OBJECTIVES, Objective, arrange, default_objective, rating_classes
from textgym_agents.reward_models.data import Dataset, read_judgements
from textgym_agents.reward_models.evaluation import CHOICES, RewardModelEvaluation, evaluate_scores
from textgym_agents.reward_models.fitting import Progress, Settings, fit
from textgym_agents.reward_models.network import Model, Pooling, has_bias, make_scorer, quiet, rescale


class RewardModelTrainer:
    """Trains a model of transformers to score texts as people do.

    Attributes:
        settings: The objective, and how it is trained.
        history: One entry an epoch: ``epoch``, ``loss`` (mean over texts), ``seconds``, and with an ``eval_dataset`` the
            numbers of :class:`RewardModelEvaluation` as ``eval_<name>``.
        best_epoch: The epoch whose weights were kept, from 1; 0 before training.
    """

    def __init__(
        self,
        model: Model,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        *,
        objective: Objective | None = None,
        tokenizer: Any = None,
        pooling: Pooling | None = None,
        learning_rate: float = 3e-5,
        num_train_epochs: int = 3,
        batch_size: int = 32,
        group_size: int = 8,
        warmup_ratio: float = 0.1,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
        max_length: int = 256,
        margin: float = 1.0,
        metric_for_best_model: str | None = None,
        early_stopping_patience: int | None = None,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        """Reads the data and makes the model. The same arguments on a CPU give the same weights, bit for bit.

        Args:
            model: A folder or Hub id of a model of transformers, ``"bundled"``, a ``PreTrainedModel`` (used itself), or a
                configuration (a new model with random weights); an encoder or a causal model. A model that has a trained
                last layer of the right size is trained on; others get a new one.
            train_dataset: A JSON Lines file, or records: scores, comparisons or rankings, see
                :func:`textgym_agents.reward_models.read_judgements`.
            eval_dataset: The same, held out; the weights of the best epoch are kept. Without it, the last epoch's.
            objective: ``"regression"``: the squared error of ratings, which are standardised within. ``"classification"``:
                every different vote is a class, and the cross entropy with the shares of the votes is learnt; the score is
                the expected vote. ``"bradley-terry"`` and ``"margin"`` (a hinge): all pairs of a record's texts whose values
                differ. ``"plackett-luce"``: whole rankings. ``None``: the first for scores, the third for comparisons, the
                last for rankings. Scores serve the last three too: ``group_size`` texts are then drawn at random and
                compared with one another, others in every epoch.
            tokenizer: Of transformers, or its folder; needed where ``model`` is no name.
            pooling: What a new last layer reads. ``"mean"``: the mean over tokens. ``"native"``: what the model's own
                ``...ForSequenceClassification`` reads, so that the saved folder needs nothing but transformers. ``None``: the
                mean for encoders, native for causal models (the last token).
            learning_rate: Highest one of AdamW (Loshchilov and Hutter 2019); it falls linearly to 0. Above 0.
            num_train_epochs: Passes over the data, at least 1.
            batch_size: Texts in a batch, at least 1; all texts of a record are in one batch.
            group_size: See ``objective``; at least 2.
            warmup_ratio: Share of the training in which the learning rate rises from 0, in [0, 1).
            weight_decay: Of matrices, at least 0.
            max_grad_norm: Longer gradients are scaled down to it; above 0.
            max_length: Most tokens of a text, at least 2; longer ones are cut from the left, which keeps the completion.
            margin: Of the objective ``"margin"``; above 0.
            metric_for_best_model: ``"spearman"``, ``"pearson"``, ``"pairwise_accuracy"`` or ``"mse"`` on ``eval_dataset``;
                ``None``: the first for scores, else the third.
            early_stopping_patience: Epochs without a better one after which training ends, at least 1; ``None``: never.
            seed: Of new weights, order, dropout.
            device: Of torch; ``None``: the GPU if there is one.

        Raises:
            DataError: Data cannot be read, or do not fit the objective.
            ModelError: The model or its tokenizer cannot be loaded.
            TypeError: ``model`` is something else.
            ValueError: Another argument is bad.
        """
        if objective is not None and objective not in OBJECTIVES:
            raise ValueError(expected("objective", objective, f"None or one of {OBJECTIVES}"))
        if pooling not in (None, "mean", "native"):
            raise ValueError(expected("pooling", pooling, "None, 'mean' or 'native'"))
        judged = read_judgements(train_dataset, "train_dataset")
        self.settings = Settings(
            objective or default_objective(judged), learning_rate, num_train_epochs, batch_size, group_size, warmup_ratio,
            weight_decay, max_grad_norm, margin, early_stopping_patience, seed,
        )  # fmt: skip
        self._classes = rating_classes(judged) if self.settings.objective == "classification" else []
        self._data = arrange(judged, self.settings.objective, self._classes)
        self._held_out = None if eval_dataset is None else read_judgements(eval_dataset, "eval_dataset", "dev")
        self._choose_by(metric_for_best_model)
        labels = [f"{value:g}" for value in self._classes] or ["score"]
        length = whole_number("max_length", max_length, 2)
        self._scorer, trained = make_scorer(model, tokenizer, labels, pooling, length, seed, device)
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        # Ratings are standardised in training, so that one learning rate does for all scales; the last layer undoes it.
        self._shift, self._scale = 0.0, 1.0
        if self.settings.objective == "regression":
            ratings = self._data.values
            self._shift = float(ratings.mean()) if has_bias(self.model) else 0.0
            self._scale = float(np.sqrt(((ratings - self._shift) ** 2).mean())) or 1.0
            if not trained:
                rescale(self.model, self._shift, self._scale)

    def _choose_by(self, metric: str | None) -> None:
        if metric is not None and metric not in CHOICES:
            raise ValueError(expected("metric_for_best_model", metric, f"None or one of {CHOICES}"))
        if self._held_out is None:
            if self.settings.early_stopping_patience is not None:
                wanted = "None without an eval_dataset, which says when to stop"
                raise ValueError(expected("early_stopping_patience", self.settings.early_stopping_patience, wanted))
        elif metric not in (None, "pairwise_accuracy") and not all(item.rated for item in self._held_out):
            wanted = "'pairwise_accuracy': the eval_dataset has no ratings"
            raise ValueError(expected("metric_for_best_model", metric, wanted))
        scored = self._held_out is not None and self._held_out[0].kind == "scores"
        self.metric_for_best_model = metric or ("spearman" if scored else "pairwise_accuracy")

    @property
    def model(self) -> Any:
        """The model of transformers."""
        return self._scorer.network

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._scorer.tokenizer

    def train(self, progress: Progress | None = None) -> list[dict[str, float]]:
        """Trains, and keeps the weights of the best epoch.

        Args:
            progress: Called after every step with its number, the share of the training that is done, and the loss.

        Returns:
            :attr:`history`.

        Raises:
            TrainingError: The loss is NaN or infinite; the message names step, epoch, batch and texts.
        """
        data = replace(self._data, values=(self._data.values - self._shift) / self._scale)
        validate = None if self._held_out is None else self._validate
        rescale(self.model, -self._shift / self._scale, 1 / self._scale)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(self.settings.seed)
                self.history, self.best_epoch = fit(self._scorer, data, self.settings, validate, progress)
        finally:
            self.model.eval()
            rescale(self.model, self._shift, self._scale)
        return self.history

    def _validate(self) -> tuple[dict[str, float], float]:
        assert self._held_out is not None
        scores = self.score([text for item in self._held_out for text in item.texts]) * self._scale + self._shift
        found = evaluate_scores(self._held_out, scores, n_resamples=0)
        quality = found.value(self.metric_for_best_model)
        sign = -1 if self.metric_for_best_model == "mse" else 1
        return {f"eval_{name}": found.value(name) for name in found.names()}, sign * quality

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Scores of ``n`` texts (prompt and completion as one), shape ``(n,)``; in units of the ratings if those are learnt."""
        self.model.eval()
        scores = np.zeros(len(texts))
        for members, _, outputs in self._scorer.outputs(self._scorer.encode(list(texts)), self.settings.batch_size):
            logits = outputs.logits.float()
            if self._classes:
                logits = logits.softmax(-1) @ logits.new_tensor(self._classes)[:, None]
            scores[members] = logits[:, 0].cpu().numpy()
        return scores

    def evaluate(self, dataset: Dataset, n_resamples: int = 1000) -> RewardModelEvaluation:
        """How well the scores agree with what people said; see :func:`textgym_agents.reward_models.evaluate_reward_model`."""
        judged = read_judgements(dataset, "dataset", "dev")
        texts = [text for item in judged for text in item.texts]
        return evaluate_scores(judged, self.score(texts), whole_number("n_resamples", n_resamples, 1))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes what ``textgym.rewards.RewardModel(folder)`` loads: safetensors, tokenizer, JSON.

        ``reward_training.json`` has the settings and the history.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        with quiet():
            self.model.save_pretrained(path)
            self.tokenizer.save_pretrained(path)
        record = {
            "textgym": textgym.__version__,
            **asdict(self.settings),
            "max_length": self._scorer.max_length,
            "metric_for_best_model": None if self._held_out is None else self.metric_for_best_model,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        (path / "reward_training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
