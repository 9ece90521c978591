"""``textgym sample``: a policy plays episodes in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import typer
from rich.console import Console
from rich.text import Text

from textgym.cli import options
from textgym.cli.options import (
    agents,
    bad_input,
    environment_id,
    environment_kwargs,
    make_console,
    named,
    prompt_room,
    replaced,
)
from textgym.core import Example, TextGymError

Writer = Callable[[Example], list[int]]
"""From a prompt to the tokens of a completion; fewer than the budget where the end token is the last."""

_SECONDS_A_TOKEN = 1 / 30  # so that one can read along


def play(
    env_id: options.EnvId,
    policy: Annotated[
        str,
        typer.Option(metavar="NAME", help="'random', 'oracle', the folder of a training run, or a saved model (.zip)."),
    ] = "random",
    episodes: Annotated[int, typer.Option(metavar="N", min=1, help="Number of episodes.")] = 3,
    seed: options.Seed = 0,
    split: Annotated[str, typer.Option(metavar="NAME", help="'train', 'dev' or 'test'.")] = "dev",
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A prompt to start from; as often as needed.")
    ] = None,
    prompts: options.Prompts = None,
    prompt_column: options.PromptColumn = None,
    prompt_words: options.PromptWords = None,
    dataset: options.Dataset = None,
    tokenizer: options.Tokenizer = None,
    reward: options.Reward = None,
    max_prompt_tokens: options.MaxPromptTokens = None,
    max_new_tokens: options.MaxNewTokens = None,
    min_new_tokens: options.MinNewTokens = None,
    difficulty: options.Difficulty = None,
    temperature: options.Temperature = 1.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    greedy: options.Greedy = False,
    num_beams: options.NumBeams = 1,
    device: options.Device = "auto",
) -> None:
    """Let a policy play, and watch the text grow."""
    console = make_console()
    name = environment_id(env_id)
    kwargs = environment_kwargs(
        prompts=prompts,
        prompt_column=prompt_column,
        prompt_words=prompt_words,
        dataset=dataset,
        tokenizer=None if tokenizer is None else named(tokenizer),
        reward=reward,
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        difficulty=difficulty,
    )
    decoding = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "greedy": greedy, "num_beams": num_beams}
    saved = policy not in ("random", "oracle")
    if not saved and decoding != {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "greedy": False, "num_beams": 1}:
        raise TextGymError(f"Expected a saved policy for the decoding options, actual: --policy {policy}")
    if saved:
        kwargs, model = _load(policy, kwargs, device, console)
    with bad_input():
        if max_prompt_tokens is None and (room := prompt_room(name, kwargs, [split])) is not None:
            kwargs["max_prompt_tokens"] = max(room, kwargs.get("max_prompt_tokens", room))
        env = gym.make(name, split=split, render_mode="human", disable_env_checker=True, **kwargs)
        writer = _model_writer(model, env, seed, decoding) if saved else _WRITERS[policy](env, seed)
        rng, source = np.random.default_rng(seed), env.unwrapped.setting.prompts  # type: ignore[attr-defined]
        examples = [Example(text) for text in prompt or []] or [source.draw(rng) for _ in range(episodes)]
        returns = [_episode(env, writer, example) for example in examples]
    env.close()
    if len(returns) > 1:
        console.print(f"\nmean reward {np.mean(returns):+.2f} over {len(returns)} episodes")


def _episode(env: gym.Env[Any, Any], write: Writer, example: Example) -> float:
    env.reset(options={"example": example})
    pause = _SECONDS_A_TOKEN if sys.stdout.isatty() else 0.0
    total = 0.0
    info: dict[str, Any] = {}
    for token in write(example):
        _, reward, terminated, _, info = env.step(token)
        total += float(reward)
        if terminated:
            break
        time.sleep(pause)
    parts = [f"{key.removeprefix('reward/')} {value:+.2f}" for key, value in info.items() if key.startswith("reward/")]
    if "is_success" in info:
        parts.append("success" if info["is_success"] else "no success")
    make_console().print(Text("   ".join(parts), style="dim"))
    return total


def _random(env: gym.Env[Any, Any], seed: int) -> Writer:
    rng, inner = np.random.default_rng(seed), env.unwrapped
    setting = inner.setting  # type: ignore[attr-defined]

    def write(example: Example) -> list[int]:
        mask, eos, ids = setting.always_allowed, setting.tokenizer.eos_token_id, []
        for written in range(setting.max_new_tokens):
            allowed = mask.copy()
            allowed[eos] &= written >= setting.min_new_tokens
            ids.append(int(rng.choice(np.flatnonzero(allowed))))
            if ids[-1] == eos:
                break
        return ids

    return write


def _oracle(env: gym.Env[Any, Any], seed: int) -> Writer:
    setting = env.unwrapped.setting  # type: ignore[attr-defined]

    def write(example: Example) -> list[int]:
        ids: list[int] = setting.tokenizer.encode(setting.task.oracle(example))
        ids += [setting.tokenizer.eos_token_id] * max(1, setting.min_new_tokens + 1 - len(ids))
        return ids[: setting.max_new_tokens]

    return write


_WRITERS: dict[str, Callable[[gym.Env[Any, Any], int], Writer]] = {"random": _random, "oracle": _oracle}


def _load(policy: str, kwargs: dict[str, Any], device: str, console: Console) -> tuple[dict[str, Any], Any]:
    """The environment's arguments (those that the policy was trained with, unless given) and the saved algorithm."""
    with agents(console):
        from textgym_agents.algorithms.registry import load_algorithm
        from textgym_agents.runs.folder import find_run
    with bad_input():
        folder, path = find_run(policy)
        model = load_algorithm(path, device=device)
    if folder is not None:
        trained = folder.read_config().eval_kwargs
        trained.pop("split")
        kwargs = replaced(trained, kwargs)
    return kwargs, model


def _model_writer(model: Any, env: gym.Env[Any, Any], seed: int, decoding: dict[str, Any]) -> Writer:
    from textgym_agents.rollouts.sampling import Decoding
    from textgym_agents.runs.evaluation import write as write_samples

    setting = env.unwrapped.setting  # type: ignore[attr-defined]
    if setting.tokenizer.vocab_size != model.policy.vocab_size:
        raise TextGymError(
            f"Expected the tokenizer that the policy was trained with ({model.policy.vocab_size} tokens), actual: one of "
            f"{setting.tokenizer.vocab_size} tokens; give it with --tokenizer"
        )
    choice = Decoding(decoding["temperature"], decoding["top_k"], decoding["top_p"])
    seeds = np.random.default_rng(seed)

    def write(example: Example) -> list[int]:
        return write_samples(
            model,
            setting,
            [example],
            int(seeds.integers(2**31)),
            deterministic=decoding["greedy"],
            decoding=choice,
            num_beams=decoding["num_beams"],
        )[0].tokens

    return write
