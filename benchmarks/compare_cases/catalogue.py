"""Every comparison, its target and what is the same on both sides."""

from __future__ import annotations

from compare_cases.environment import ALONE, EnvironmentRate, environment
from compare_cases.growth import LengthGrowth
from compare_cases.memory import Memory
from compare_cases.rows import Comparison, Side

Case = Comparison | EnvironmentRate | LengthGrowth | Memory


def rollout(slots: int, **options: object) -> Side:
    return Side(f"textgym rollout, {slots} slots", "run_ours", {"how": "rollout", "slots": slots, **options})


def plain(name: str, how: str, slots: int) -> Side:
    return Side(f"{name}, {slots} rows", "rollout_plain", {"how": how, "slots": slots})


def trainer(algorithm: str, **options: object) -> Side:
    return Side(f"textgym {algorithm}", "run_ours", {"how": "train", "algorithm": algorithm, **options})


def trl(name: str, algorithm: str, **options: object) -> Side:
    python = "trl with ppo" if algorithm == "ppo" else "trl"
    return Side(name, "trl_trainers", {"algorithm": algorithm, **options}, python)


NO_ENVIRONMENT = (
    "ours steps an environment, records log-probabilities and values, scores the completions and computes advantages"
)
DRAWN = "sampled at temperature 1 without top-k and top-p; prompts all different; key-value cache"
UPDATE = "64 completions, one rollout and one minibatch of all 64 a step; AdamW; a trivial reward"
GROUPS = "8 completions a prompt, reference model with coefficient 0.04, one epoch"
CRITIC = (
    "ours has a value head on the policy; TRL's API demands a value model and a reward model, here of the policy's size"
)

CASES: tuple[Case, ...] = (
    EnvironmentRate(),
    *(
        Comparison(
            f"environment-vs-sync-{slots}",
            environment(native=True, slots=slots),
            environment(native=False, slots=slots),
            target,
            common=ALONE,
            differs="ours is batched; Gymnasium's steps the same environments one after the other",
        )
        for slots, target in ((64, 20.0), (1024, 60.0))
    ),
    *(
        Comparison(
            f"rollout-{slots}",
            rollout(slots),
            plain("transformers generate", "generate", slots),
            target,
            same=f"{DRAWN}; no end token before the last",
            differs=f"{NO_ENVIRONMENT}; generate does none of it",
        )
        for slots, target in ((64, 2.0), (256, 1.9))
    ),
    *(
        Comparison(
            f"rollout-vs-handwritten-{slots}",
            rollout(slots),
            plain("hand-written loop", "by hand", slots),
            0.85,
            same=f"{DRAWN}; log-probability of every token recorded",
            differs=f"{NO_ENVIRONMENT}; the loop is the limit: it has neither environment, values, action masks nor padding",
        )
        for slots in (64, 256)
    ),
    *(
        Comparison(
            f"rollout-mixed-lengths-{slots}",
            rollout(slots, mixed=True),
            plain("transformers generate", "generate mixed", slots),
            3.0,
            same=f"{DRAWN}; the same completion lengths, drawn uniformly from 4 to 48; tokens of completions alone are counted",
            differs=f"{NO_ENVIRONMENT}; generate computes every row until the longest ends",
        )
        for slots in (64, 256)
    ),
    Comparison(
        "grpo",
        trainer("GRPO"),
        trl("TRL 1.16 GRPOTrainer", "grpo"),
        1.7,
        same=f"{UPDATE}; {GROUPS}",
        differs="each library's own loss and logged numbers",
    ),
    Comparison(
        "rloo",
        trainer("RLOO"),
        trl("TRL 1.16 RLOOTrainer", "rloo"),
        1.7,
        same=f"{UPDATE}; {GROUPS}",
        differs="each library's own loss and logged numbers",
    ),
    *(
        Comparison(
            f"ppo-{epochs}",
            trainer("PPO", epochs=epochs),
            trl("TRL 1.12 PPOTrainer", "ppo", epochs=epochs),
            2.3,
            same=f"{UPDATE}; reference model with coefficient 0.05; {epochs} epoch{'s' * (epochs > 1)}",
            differs=CRITIC,
        )
        for epochs in (1, 4)
    ),
    Comparison(
        "ppo-vs-sb3",
        Side("textgym PPO", "stock_sb3", {"which": "ours"}),
        Side("stock SB3 PPO", "stock_sb3", {"which": "stock"}),
        25.0,
        same="64 slots; same policy class, environments and reward; one epoch, minibatches of 768 tokens; no reference model",
        differs="SB3 reads every prefix anew; ours decodes with a key-value cache and trains in one pass an episode",
    ),
    LengthGrowth(),
    Memory(),
)
