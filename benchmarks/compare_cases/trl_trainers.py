"""TRL's trainers on the reference workload; runs under the peers' Python.

``python -m compare_cases.trl_trainers '{"algorithm": "grpo", "prompts": FILE, "folder": EMPTY_FOLDER}'``

Settings are fair to the peer: no dropout, no gradient checkpointing, no logging, saving or progress bar, float32, one
minibatch of all completions, one optimiser step a rollout and epoch. TRL reads its reference model from a folder, so the
model is written to one first. PPO is TRL 1.12's, the last version that has it, found on PYTHONPATH; its API demands a
separate value model and a reward model, which here have the policy's size.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, GPT2ForSequenceClassification, GPT2LMHeadModel, TrainerCallback
from transformers.utils import logging

from compare_cases.serving import Session, options
from compare_cases.workload import (
    NEW_TOKENS,
    PROMPT_TOKENS,
    facts,
    gpt2_config,
    language_model,
    letter_share,
    read_prompts,
)

SLOTS, GROUP = 64, 8
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": SLOTS,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-5,
    "temperature": 1.0,
    "gradient_checkpointing": False,
    "bf16": False,
    "fp16": False,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 10**6,
    "save_strategy": "no",
    "disable_tqdm": True,
    "seed": 0,
}
MOST_STEPS = 10**5  # more than any run needs: the parent ends it


class Turns(TrainerCallback):
    """One step of the trainer is one step of the session: it waits between repetitions inside of ``train``."""

    def __init__(self, session: Session, told: dict[str, Any]) -> None:
        self.session, self.told = session, told

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.session.begin(**self.told)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.session.tick(SLOTS * NEW_TOKENS)


def group_trainer(algorithm: str, known: dict[str, Any], folder: Path, callback: Turns) -> Any:
    import trl

    tokenizer = AutoTokenizer.from_pretrained(known["tokenizer"])
    language_model(known).save_pretrained(folder / "model")
    model = GPT2LMHeadModel.from_pretrained(folder / "model", attn_implementation="sdpa")
    config, trainer = {"grpo": (trl.GRPOConfig, trl.GRPOTrainer), "rloo": (trl.RLOOConfig, trl.RLOOTrainer)}[algorithm]

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        if {len(ids) for ids in completion_ids} != {NEW_TOKENS}:
            raise RuntimeError(f"Expected completions of {NEW_TOKENS} tokens, actual: {set(map(len, completion_ids))}")
        return letter_share(completions)

    return trainer(
        model=model,
        reward_funcs=reward,
        args=config(
            output_dir=str(folder / "out"),
            num_generations=GROUP,
            max_completion_length=NEW_TOKENS,
            num_iterations=1,
            beta=0.04,
            max_steps=MOST_STEPS,
            top_k=0,
            top_p=1.0,
            generation_kwargs={"min_new_tokens": NEW_TOKENS},
            dataloader_num_workers=0,
            **COMMON,
        ),
        train_dataset=Dataset.from_dict({"prompt": known["texts"]}),
        processing_class=tokenizer,
        callbacks=[callback],
    )


def ppo_trainer(epochs: int, known: dict[str, Any], folder: Path, callback: Turns) -> Any:
    import trl.experimental.ppo.ppo_trainer as ppo

    def scorer(seed: int) -> GPT2ForSequenceClassification:
        torch.manual_seed(seed)
        config = gpt2_config(known)
        config.num_labels = 1
        return GPT2ForSequenceClassification(config)

    whole = ppo.batch_generation

    def checked(*args: Any, **kwargs: Any) -> Any:
        found = whole(*args, **kwargs)
        if tuple(found[0].shape) != (SLOTS, PROMPT_TOKENS + NEW_TOKENS):
            raise RuntimeError(f"Expected completions of {NEW_TOKENS} tokens, actual shape: {tuple(found[0].shape)}")
        return found

    ppo.batch_generation = checked
    prompts = Dataset.from_dict({"input_ids": known["ids"]})
    return ppo.PPOTrainer(
        args=ppo.PPOConfig(
            output_dir=str(folder / "out"),
            num_ppo_epochs=epochs,
            num_mini_batches=1,
            response_length=NEW_TOKENS,
            local_rollout_forward_batch_size=SLOTS,
            total_episodes=SLOTS * MOST_STEPS,
            num_sample_generations=0,
            stop_token=None,
            kl_coef=0.05,
            **COMMON,
        ),
        processing_class=AutoTokenizer.from_pretrained(known["tokenizer"]),
        model=language_model(known),
        ref_model=language_model(known),
        reward_model=scorer(1),
        value_model=scorer(2),
        train_dataset=prompts,
        eval_dataset=prompts.select(range(SLOTS)),
        callbacks=[callback],
    )


def main() -> None:
    asked, session = options(), Session()
    known, folder = read_prompts(asked["prompts"]), Path(asked["folder"])
    os.chdir(folder)
    logging.set_verbosity_error()
    callback = Turns(session, {})
    if asked["algorithm"] == "ppo":
        trainer = ppo_trainer(asked["epochs"], known, folder, callback)
    else:
        trainer = group_trainer(asked["algorithm"], known, folder, callback)
        if getattr(trainer, "ref_model", None) is None:
            raise RuntimeError("Expected TRL to have a reference model")
    callback.told["facts"] = facts("trl", "accelerate")
    trainer.train()


if __name__ == "__main__":
    main()
