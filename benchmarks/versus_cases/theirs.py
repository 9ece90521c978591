"""TRL's side, under its own Python: ``python -m versus_cases.theirs '{"algorithm": "ppo", "seed": 0, ...}'``.

It needs TRL and the half of textgym that does without torch: prompts, tokenizer, reward and the bundled model's files. The
trainers are used as they are, with these exceptions, each of which makes the two sides more alike:

* PPO (of TRL 1.12, the last version that has it) wants a model for a reward; `get_reward` gives it ours, of the text.
* PPO wants a value model; it is given one that shares the policy's layers and has a linear head that starts at 0, as
  textgym's has. With `"critic": "separate"` it gets a copy of the layers, as TRL's examples do.
* GRPO does not tell the model where a padded prompt begins, while `generate` does, so a model with absolute positions (GPT-2)
  is trained at other positions than it wrote at. `tell_positions` adds them; `"positions": false` leaves that out.
* Both trainers count episodes or steps; a callback ends them once the tokens are spent.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from compare_cases.workload import facts
from datasets import Dataset
from torch import nn
from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2LMHeadModel, TrainerCallback
from transformers.utils import logging

import textgym
from textgym.core import Completion, Example
from textgym.envs.episodes import Setting
from textgym.tokenization import ASSETS

PROMPTS = 4096  # more than a run reads, so that none comes twice, as with textgym's generator


class Judge:
    """textgym's reward of completions, and the record of a run: tokens written so far and the mean reward, by rollout."""

    def __init__(self, setting: Setting, examples: Sequence[Example]) -> None:
        self._setting, self._examples = setting, {example.prompt: example for example in examples}
        self.points: list[tuple[int, float]] = []

    @property
    def tokens(self) -> int:
        return self.points[-1][0] if self.points else 0

    def __call__(self, prompts: Sequence[str], completions: Sequence[Sequence[int]]) -> list[float]:
        tokenizer = self._setting.tokenizer
        written = [
            Completion(
                prompt,
                text,
                self._examples[prompt].references,
                self._examples[prompt].meta,
                tuple(ids),
                "stop" if ids and ids[-1] == tokenizer.eos_token_id else "length",
                text,
            )
            for prompt, ids, text in zip(
                prompts, completions, tokenizer.decode_batch(completions, continues=True), strict=True
            )
        ]
        rewards, _ = self._setting.reward.parts(written)
        self.points.append((self.tokens + sum(map(len, completions)), float(np.mean(rewards))))
        return [float(reward) for reward in rewards]


class BudgetSpent(Exception):
    """PPO's loop asks no callback whether to go on."""


class Budget(TrainerCallback):
    """Ends a training after the updates on the rollout that has spent the tokens, as textgym does."""

    def __init__(self, judge: Judge, tokens: int, steps: int, by_exception: bool) -> None:
        self._judge, self._tokens, self._steps, self._by_exception = judge, tokens, steps, by_exception

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._judge.tokens >= self._tokens and state.global_step % self._steps == 0:
            control.should_training_stop = True
            if self._by_exception:
                raise BudgetSpent


def tell_positions(model: nn.Module) -> None:
    """Whoever reads whole padded rows without saying which positions they have gets those that `generate` uses."""

    def add(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        if mask is not None and kwargs.get("position_ids") is None and mask.shape == kwargs["input_ids"].shape:
            kwargs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return args, kwargs

    model.register_forward_pre_hook(add, with_kwargs=True)


def common(asked: dict[str, Any]) -> dict[str, Any]:
    """Arguments of every trainer: plain AdamW at a constant rate in float32, and nothing that costs time besides."""
    return {
        "output_dir": str(Path(asked["folder"]) / "trl"),
        "learning_rate": asked["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "gradient_accumulation_steps": 1,
        "temperature": 1.0,
        "gradient_checkpointing": False,
        "bf16": False,
        "fp16": False,
        "use_cpu": True,
        "report_to": "none",
        "logging_steps": 10**6,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": asked["seed"],
    }


def bundled() -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(ASSETS, attn_implementation="sdpa")


def grpo(asked: dict[str, Any], setting: Setting, examples: Sequence[Example], judge: Judge, tokenizer: Any) -> Any:
    import trl

    parts = asked["episodes"] // asked["minibatch"]

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        return judge(prompts, completion_ids)

    trainer = trl.GRPOTrainer(
        model=bundled(),
        reward_funcs=reward,
        args=trl.GRPOConfig(
            per_device_train_batch_size=asked["minibatch"],
            steps_per_generation=parts,
            num_iterations=asked["epochs"],
            num_generations=asked["group"],
            max_completion_length=setting.max_new_tokens,
            top_k=0,
            top_p=1.0,
            beta=asked["kl_coef"],
            use_bias_correction_kl=False,  # the plain estimate in the loss, as in the paper
            epsilon=asked["clip_range"],
            loss_type="grpo",
            scale_rewards="group",
            max_grad_norm=asked["max_grad_norm"],
            max_steps=10**6,
            **common(asked),
        ),
        train_dataset=Dataset.from_dict({"prompt": [example.prompt for example in examples]}),
        processing_class=tokenizer,
        callbacks=[Budget(judge, asked["tokens"], parts * asked["epochs"], by_exception=False)],
    )
    if trainer.ref_model is None:
        raise RuntimeError("Expected TRL to have a reference model")
    if asked.get("positions", True):
        tell_positions(trainer.model)
        tell_positions(trainer.ref_model)
    return trainer


def save_probe(trainer: Any, file: Path) -> None:
    """One rollout of GRPO's and, with weights that have moved since, its loss and gradient; for `probe.apart`."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():  # or all ratios would be 1
        for weight in trainer.model.parameters():
            weight += 0.01 * torch.randn_like(weight)
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    known = {name: batch[name] for name in (*names, "old_per_token_logps", "ref_per_token_logps", "advantages")}
    weights = {name: weight.detach() for name, weight in trainer.model.named_parameters()}
    gradients = {name: weight.grad for name, weight in trainer.model.named_parameters()}
    torch.save({**known, "weights": weights, "gradients": gradients, "loss": loss.item()}, file)


class TextReward(nn.Module):
    """Stands where PPO expects a reward model."""


def critic_of(policy: GPT2LMHeadModel, separate: bool) -> GPT2ForSequenceClassification:
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    critic = GPT2ForSequenceClassification(config)
    critic.transformer = copy.deepcopy(policy.transformer) if separate else policy.transformer
    critic.score = nn.Linear(config.n_embd, 1)
    nn.init.zeros_(critic.score.weight)
    nn.init.zeros_(critic.score.bias)
    return critic


def ppo(asked: dict[str, Any], setting: Setting, examples: Sequence[Example], judge: Judge, tokenizer: Any) -> Any:
    import trl.experimental.ppo.ppo_trainer as module

    policy, scorer, of_a_model = bundled(), TextReward(), module.get_reward

    def get_reward(model: nn.Module, rows: torch.Tensor, pad: int, width: int) -> tuple[Any, torch.Tensor, Any]:
        """The trainer takes the second result of a reward model, ``[B]``, and the first of a value model."""
        if model is not scorer:
            return of_a_model(model, rows, pad, width)
        queries = tokenizer.batch_decode(rows[:, :width], skip_special_tokens=True)
        ends = (
            (rows[:, width:] == pad).int().cumsum(-1).eq(0).sum(-1).tolist()
        )  # the end token counts, padding does not
        written = [row[width : width + end] for row, end in zip(rows.tolist(), ends, strict=True)]
        return None, torch.tensor(judge(queries, written)), None

    module.get_reward = get_reward
    return module.PPOTrainer(
        args=module.PPOConfig(
            per_device_train_batch_size=asked["episodes"],
            num_mini_batches=asked["episodes"] // asked["minibatch"],
            local_rollout_forward_batch_size=asked["episodes"],
            num_ppo_epochs=asked["epochs"],
            total_episodes=asked["episodes"] * 10**6,
            num_sample_generations=0,
            response_length=setting.max_new_tokens,
            stop_token="eos",
            kl_coef=asked["kl_coef"],
            kl_estimator="k1",
            cliprange=asked["clip_range"],
            cliprange_value=1e9,  # none
            vf_coef=2 * asked["vf_coef"],  # of half the squared error
            gamma=asked["gamma"],
            lam=asked["gae_lambda"],
            **common(asked),
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=bundled(),
        reward_model=scorer,
        value_model=critic_of(policy, asked.get("critic") == "separate"),
        train_dataset=Dataset.from_dict({"input_ids": setting.encode_prompts(examples)}),
        callbacks=[Budget(judge, asked["tokens"], 1, by_exception=True)],
    )


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    logging.set_verbosity_error()
    folder = Path(asked["folder"])
    env = gym.make(asked["env"], disable_env_checker=True, max_new_tokens=asked["max_new_tokens"])
    setting = env.unwrapped.setting  # type: ignore[attr-defined]
    rng = np.random.default_rng(asked["seed"])
    examples = [setting.prompts.draw(rng) for _ in range(PROMPTS)]
    judge, tokenizer = Judge(setting, examples), AutoTokenizer.from_pretrained(ASSETS)
    texts = [example.prompt for example in examples]
    if tokenizer(texts)["input_ids"] != setting.encode_prompts(examples):
        raise RuntimeError("Expected both tokenizers to read prompts alike")
    trainer = {"grpo": grpo, "ppo": ppo}[asked["algorithm"]](asked, setting, examples, judge, tokenizer)
    if asked.get("probe"):
        save_probe(trainer, folder / "probe.pt")
        return
    policy = trainer.policy_model if asked["algorithm"] == "ppo" else trainer.model
    start = time.perf_counter()
    with contextlib.suppress(BudgetSpent):
        trainer.train()
    seconds = time.perf_counter() - start
    policy.save_pretrained(folder / "model")
    told = {
        "tokens": judge.tokens,
        "seconds": seconds,
        "curve": judge.points,
        "facts": {**facts("trl", "accelerate"), "textgym": textgym.__version__},
    }
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
