"""Writing where somebody replies: the environment's turns are read in between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from textgym.core import Completion, Example
from textgym.envs.episodes import Episodes, Setting
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.decoding import CachedDecoder, Limits, greedy, sampler
from textgym_agents.rollouts.sampling import Decoding


@torch.no_grad()
def converse(
    policy: LMPolicy,
    setting: Setting,
    examples: Sequence[Example],
    deterministic: bool = False,
    decoding: Decoding | None = None,
    generator: torch.Generator | None = None,
) -> tuple[list[Completion], list[list[int]], list[list[bool]]]:
    """Plays one episode from each example.

    Args:
        policy: Chooses the tokens.
        setting: Of the environment; its task replies.
        examples: ``n`` examples.
        deterministic: Greedy instead of sampling.
        decoding: Temperature, top-k, top-p.
        generator: Source of randomness; the policy's own if ``None``.

    Returns:
        ``n`` completions; the token ids after each prompt, replies included; and which of them the policy chose.
    """
    policy.set_training_mode(False)
    device, limits = policy.device, Limits.of(setting)
    choose = greedy if deterministic else sampler(decoding or Decoding(), generator or policy.generator)
    episodes, slots = Episodes(setting, len(examples)), np.arange(len(examples))
    episodes.begin(slots, examples)
    first = episodes.observe()
    ids, seen, own = (torch.as_tensor(first[key], device=device) for key in first)
    decoder = CachedDecoder(policy, ids.long(), seen, own, setting.max_new_tokens + setting.task.max_reply_tokens)
    while True:
        written = torch.as_tensor(episodes.written[slots], device=device)
        tokens = choose(decoder.logits, limits.mask(written)).cpu().numpy()
        before = episodes.appended[slots]
        _, ended = episodes.step(slots, tokens)
        going = np.flatnonzero(~ended)
        if not len(going):
            break
        slots, counts = slots[going], (episodes.appended[slots] - before)[going]
        if ended.any():
            decoder.select(torch.as_tensor(going, device=device))
        most = int(counts.max())
        new = torch.as_tensor(episodes.observe(slots)["input_ids"][:, -most:], device=device)
        fresh = torch.as_tensor(np.arange(most) >= most - counts[:, None], device=device)
        decoder.append(new, None if bool(fresh.all()) else fresh)
    everything, last = np.arange(len(examples)), episodes.observe()
    lengths = episodes.appended.tolist()
    return (
        episodes.completions(everything),
        [row[len(row) - n :].tolist() for row, n in zip(last["input_ids"], lengths, strict=True)],
        [row[len(row) - n :].astype(bool).tolist() for row, n in zip(last["completion_mask"], lengths, strict=True)],
    )
