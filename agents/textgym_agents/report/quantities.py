"""What the log's columns mean: title, unit, and one sentence for students."""

from __future__ import annotations

from dataclasses import dataclass

from textgym_agents.report.run import TIMESTEPS, Progress


@dataclass(frozen=True)
class Quantity:
    """A column of the log as a chart shows it.

    Attributes:
        column: Its name in ``progress.csv``.
        title: Of the chart.
        unit: Of the vertical axis.
        text: What it is and how to read it.
        zero: Whether the axis includes 0.
        sign: -1 for what is logged with its sign flipped.
        main: Whether it is shown at first sight.
    """

    column: str
    title: str
    unit: str
    text: str
    zero: bool = False
    sign: int = 1
    main: bool = False


REWARD = Quantity(
    "rollout/ep_rew_mean",
    "Reward",
    "reward per episode",
    "What the environment pays for an episode, averaged over the latest training episodes: training exists to raise it.",
    main=True,
)
KL = Quantity(
    "rollout/kl",
    "KL from the reference model",
    "nats per episode",
    "How far the policy has moved from the model that training started from; very large values often mean that it games the reward.",
    zero=True,
    main=True,
)
ENTROPY = Quantity(
    "train/entropy_loss",
    "Entropy",
    "nats per token",
    "How undecided the policy is about its next token; near 0 it writes nearly the same text every time.",
    zero=True,
    sign=-1,
    main=True,
)
KNOWN = (
    REWARD,
    KL,
    ENTROPY,
    Quantity(
        "train/policy_gradient_loss",
        "Policy loss",
        "per token",
        "The objective of the policy with its sign flipped; it hovers around 0, and its size says little about progress.",
        main=True,
    ),
    Quantity(
        "train/value_loss",
        "Value loss",
        "squared reward",
        "Mean squared error of the critic, which forecasts the rewards still to come: it should fall.",
        zero=True,
        main=True,
    ),
    Quantity(
        "rollout/ep_len_mean",
        "Episode length",
        "tokens per episode",
        "How many tokens the policy writes; a reward that favours long or short texts shows here first.",
        zero=True,
        main=True,
    ),
    Quantity(
        "eval/mean_reward",
        "Validation score",
        "reward per episode",
        "What the policy earns on validation prompts, at every checkpoint: the best one is kept, and training ends when none is better for long.",
    ),
    Quantity(
        "train/explained_variance",
        "Explained variance",
        "share",
        "How much of the returns the critic foresees: 1 is everything, 0 no more than their mean, below 0 is worse than that.",
    ),
    Quantity(
        "train/kl_coef",
        "KL coefficient",
        "reward per nat",
        "The price that a nat of KL costs; an adaptive one rises while the KL is above its target.",
        zero=True,
    ),
    Quantity(
        "train/approx_kl",
        "Step size of an update",
        "nats per token",
        "KL between the policy that wrote a batch and the policy after learning from it; steps that are too large make training unstable.",
        zero=True,
    ),
    Quantity(
        "train/clip_fraction",
        "Clipped tokens",
        "share of tokens",
        "Share of tokens whose probability had already changed so much that PPO stopped pushing them.",
        zero=True,
    ),
    Quantity("train/loss", "Total loss", "per token", "The sum that the optimiser minimises, on the last minibatch."),
    Quantity("train/learning_rate", "Learning rate", "", "The size of the optimiser's steps.", zero=True),
    Quantity("time/fps", "Speed", "tokens per second", "Tokens generated and learned from, per second.", zero=True),
)
_UNINTERESTING = {TIMESTEPS, "train/n_updates"}


def quantities(progress: Progress) -> list[Quantity]:
    """Everything in the log that is worth a chart, in the order in which to read it.

    Columns that nobody described here (of another algorithm, say) come last, under their own names; those that never
    change are left out, as is a part of the reward that is all of it.
    """

    def values(column: str) -> list[float]:
        return [v for _, v in progress.points(column)]

    reward = values(REWARD.column)
    parts = [
        Quantity(
            c, f"Reward part: {c.removeprefix('rollout/reward/')}", "per episode", "One of the terms of the reward."
        )
        for c in progress.columns
        if c.startswith("rollout/reward/") and len(set(values(c))) > 1 and values(c) != reward
    ]
    named = [q for q in KNOWN if (len(set(values(q.column))) > 1 if not q.main else values(q.column))]
    taken = _UNINTERESTING | {q.column for q in (*KNOWN, *parts)}
    others = [
        Quantity(c, c, "", "Logged by the algorithm under this name.")
        for c in progress.columns
        if c not in taken and not c.startswith(("time/", "rollout/reward/")) and len(set(values(c))) > 1
    ]
    return [q for q in named if q.main] + parts + [q for q in named if not q.main] + others
