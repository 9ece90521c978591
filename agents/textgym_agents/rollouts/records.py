"""Episodes from records of a prompt, a completion and a reward."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from textgym.core import Example, TextGymError, expected
from textgym.data.sources import given_rows
from textgym.envs.episodes import Setting
from textgym.prompts import PromptError
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.decoding import Limits


def read_episodes(dataset: str | pathlib.Path | Sequence[Mapping[str, Any]], env: VecEnv | None) -> Sequences:
    """Episodes that earned their rewards with their last tokens.

    Args:
        dataset: A file (JSON Lines, also ``.gz``; Parquet), or records: mappings with ``"prompt"``, ``"completion"`` and
            ``"reward"``.
        env: Whose tokenizer and limits hold. Completions that are shorter than its budget get an end token.

    Raises:
        PromptError: The file cannot be read, or a record is bad or too long.
        TextGymError: There is no environment, or it is none of ours.
    """
    if env is None or not env.has_attr("setting"):
        raise TextGymError(
            expected("env", env, "an environment of textgym where `dataset` is given: it has the tokenizer")
        )
    setting: Setting = env.get_attr("setting", indices=0)[0]
    records = [_checked(record, number) for number, record in given_rows(dataset)]
    prompts = setting.encode_prompts([Example(prompt) for prompt, _, _ in records])
    completions = [
        _ended(ids, setting, number)
        for number, ids in enumerate(setting.tokenizer.encode_batch([text for _, text, _ in records]), start=1)
    ]
    sequences = Sequences.of(prompts, completions, Limits.of(setting))
    rewards = sequences.rewards.clone()
    rewards[:, -1] = rewards.new_tensor(
        [reward for _, _, reward in records]
    )  # the last column is every one's last token
    return sequences.with_(rewards=rewards)


def _checked(record: Any, number: int) -> tuple[str, str, float]:
    where = f"record {number} of `dataset`"
    wanted = {"prompt": str, "completion": str, "reward": (int, float)}
    if not isinstance(record, Mapping) or not set(wanted) <= set(record):
        raise PromptError(f"Expected {where} to have {sorted(wanted)}, actual: {record!r:.200}")
    for name, kind in wanted.items():
        if not isinstance(record[name], kind) or isinstance(record[name], bool):  # type: ignore[arg-type]
            raise PromptError(
                f"Expected {name!r} of {where} to be a {'text' if kind is str else 'number'}: {record[name]!r}"
            )
    if not math.isfinite(record["reward"]):
        raise PromptError(f"Expected 'reward' of {where} to be finite, actual: {record['reward']}")
    return record["prompt"], record["completion"], float(record["reward"])


def _ended(ids: list[int], setting: Setting, number: int) -> list[int]:
    if len(ids) > setting.max_new_tokens:
        raise PromptError(
            f"Expected a completion of at most max_new_tokens={setting.max_new_tokens} tokens in record {number} of "
            f"`dataset`, actual: {len(ids)}"
        )
    return ids if len(ids) == setting.max_new_tokens else [*ids, setting.tokenizer.eos_token_id]
