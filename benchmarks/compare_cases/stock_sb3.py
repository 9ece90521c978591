"""PPO of ours against stock Stable-Baselines3's: the same policy class, model and environments, both in the same process kind.

Both train the same language model as the same policy class (`CausalLMPolicy`) on the same environments: 64 slots, prompts of
exactly 16 tokens, exactly 48 new tokens (the end token is forbidden before), float32, no reference model. One step is one call
of `learn` for one rollout of 64 × 48 = 3,072 tokens and its updates, with the same number of epochs and as many tokens in a
minibatch: a minibatch of ours has 16 episodes, one of SB3's 768 steps.

What differs is how a prefix is read. SB3 hands a policy single observations, so that the model reads every prefix anew, in
the rollout and again in every epoch. Ours decodes with a key-value cache and makes one teacher-forced pass an episode.

Of what is not the same, all favours SB3's side: one epoch, because in training ours gains the most; the rollout of SB3 has
no key-value cache to manage; and its observations are trimmed to the longest prefix in a batch.

``python -m compare_cases.stock_sb3 '{"which": "stock", "prompts": FILE}'``
"""

from __future__ import annotations

from typing import Any

from stable_baselines3 import PPO as StockPPO
from stable_baselines3.common.vec_env import VecMonitor

from compare_cases.ours import ENV_ID, WARM_UP_TOKENS, env_kwargs, learn_once
from compare_cases.serving import Session, options, serve
from compare_cases.workload import NEW_TOKENS, facts, language_model, read_prompts
from textgym_agents import PPO, CausalLMPolicy, Limits
from textgym_agents.vec_env import vectorised

SLOTS, EPISODES_A_MINIBATCH, EPOCHS = 64, 16, 1


def make_ours(known: dict[str, Any]) -> PPO:
    return PPO(
        "CausalLMPolicy",
        VecMonitor(vectorised(ENV_ID, SLOTS, **env_kwargs(known))),
        batch_size=EPISODES_A_MINIBATCH,
        n_epochs=EPOCHS,
        kl_coef=0.0,
        learning_rate=1e-5,
        policy_kwargs={"model": language_model(known)},
        device="cpu",
        seed=0,
    )


def make_stock(known: dict[str, Any]) -> StockPPO:
    limits = Limits(
        known["vocab_size"],
        known["eos"],
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        forbidden=(known["pad"],),
    )
    return StockPPO(
        CausalLMPolicy,
        VecMonitor(vectorised(ENV_ID, SLOTS, **env_kwargs(known))),
        n_steps=NEW_TOKENS,
        batch_size=EPISODES_A_MINIBATCH * NEW_TOKENS,
        n_epochs=EPOCHS,
        gamma=1.0,
        max_grad_norm=1.0,
        learning_rate=1e-5,
        policy_kwargs={"model": language_model(known), "limits": limits},
        device="cpu",
        seed=0,
    )


def main() -> None:
    asked, session = options(), Session(warm_up=1 if options()["which"] == "stock" else 2)
    known = read_prompts(asked["prompts"])
    algorithm = {"ours": make_ours, "stock": make_stock}[asked["which"]](known)
    if asked["which"] == "ours":
        algorithm.learn(WARM_UP_TOKENS)
    serve(lambda: learn_once(algorithm, SLOTS * NEW_TOKENS), session, facts=facts("stable-baselines3"))


if __name__ == "__main__":
    main()
