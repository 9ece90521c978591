"""Adversarial imitation: the discriminator, what it pays, and that the policy comes to write what was shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, Chat, tiny_gpt2, tiny_t5, toy_algorithm, toy_vector
from stable_baselines3.common.callbacks import BaseCallback
from test_rollout import collect

from textgym_agents import GAIL
from textgym_agents.models.discriminator import Discriminator, discriminator_loss
from textgym_agents.rollouts.buffers import Sequences


def played_by(algorithm: GAIL) -> Sequences:
    """A rollout before the discriminator has paid it."""
    kept: list[Sequences] = []
    pay = algorithm._paid
    algorithm._paid = lambda s: kept.append(s) or pay(s)  # type: ignore[method-assign,func-returns-value]
    collect(algorithm)  # type: ignore[arg-type]
    return kept[0]


def with_opinion(**kwargs: Any) -> GAIL:
    """A discriminator whose head is not zero, and that does not learn."""
    algorithm = toy_algorithm(GAIL, discriminator_updates=0, **kwargs)
    torch.manual_seed(0)
    torch.nn.init.normal_(algorithm.discriminator.head.weight)
    return algorithm


def belief(algorithm: GAIL, episode: Any, tokens: int | None = None) -> float:
    """What the discriminator thinks of an episode up to so many tokens, without padding."""
    model, start = algorithm.discriminator, len(episode.prompt)
    ids = torch.tensor([(episode.prompt + episode.tokens)[: None if tokens is None else start + tokens]])
    chosen = torch.tensor(episode.chosen[:tokens])
    with torch.no_grad():
        hidden = model.model.base_model(input_ids=ids).last_hidden_state[0, start:][chosen]
        return float(model.head(hidden.mean(0)).sigmoid())


def test_discriminator_loss_against_a_loop() -> None:
    logits, mask = torch.tensor([[0.3, -2.0, 9.0]]), torch.tensor([[True, True, False]])
    p = logits[0, :2].sigmoid()
    assert float(discriminator_loss(logits, mask, True)) == pytest.approx(float(-p.log().mean()))
    assert float(discriminator_loss(logits, mask, False)) == pytest.approx(float(-(1 - p).log().mean()), rel=1e-5)


def test_it_reads_what_was_written_up_to_each_token() -> None:
    found = Discriminator(tiny_gpt2(vocab_size=len(WORDS)), len(WORDS), False)
    torch.nn.init.normal_(found.head.weight)
    ids, mask = torch.tensor([[0, 0, 3, 4, 5]]), torch.tensor([[False, False, True, True, True]])
    written = torch.tensor([[False, True, True]])
    whole = found(ids, mask, written)
    alone = found(ids[:, 2:4], mask[:, 2:4], written[:, 1:2])
    torch.testing.assert_close(whole[:, 1:2], alone)
    states = found.model.base_model(input_ids=ids[:, 2:]).last_hidden_state[0]
    torch.testing.assert_close(whole[0, 2:], found.head((states[1] + states[2]) / 2))


@pytest.mark.parametrize("kind", ["dense", "final"])
def test_what_it_pays(kind: str) -> None:
    algorithm = with_opinion(discriminator_reward=kind)
    played = played_by(algorithm)
    paid = algorithm._paid(played)
    for row, episode in enumerate(played.episodes()):
        beliefs = [belief(algorithm, episode, t + 1) for t in range(len(episode.tokens))]
        wanted = np.diff(beliefs, prepend=0.0) if kind == "dense" else [0.0] * (len(beliefs) - 1) + beliefs[-1:]
        np.testing.assert_allclose(paid[row, -len(beliefs) :], wanted, atol=1e-5)
        assert (paid[row, : -len(beliefs)] == 0).all()


def test_a_search_that_is_certain_pays_what_the_greedy_completion_is_worth() -> None:
    algorithm = with_opinion(discriminator_reward="rollout", rollout_samples=2, top_k=1)
    played = played_by(algorithm)
    paid = algorithm._paid(played)
    for row, episode in enumerate(played.episodes()):
        whole = belief(algorithm, episode)  # greedy, so every prefix leads there
        assert paid[row].sum() == pytest.approx(whole, abs=1e-5)
        first = len(paid[row]) - len(episode.tokens)
        assert float(paid[row, first]) == pytest.approx(whole, abs=1e-5)
        np.testing.assert_allclose(paid[row, first + 1 :], 0, atol=1e-5)


def test_with_replies_only_the_policys_tokens_are_paid() -> None:
    algorithm = with_opinion(env=toy_vector(4, Chat()))
    played = played_by(algorithm)
    paid = algorithm._paid(played)
    assert not bool(played.action_mask.all())
    assert (paid[~played.action_mask] == 0).all()
    for row, episode in enumerate(played.episodes()):
        assert float(paid[row].sum()) == pytest.approx(belief(algorithm, episode), abs=1e-5)


def test_the_policy_is_not_moved_by_the_discriminators_updates() -> None:
    algorithm = toy_algorithm(GAIL, discriminator_learning_rate=1e-2, discriminator_updates=3)
    played = played_by(algorithm)
    before = {k: v.clone() for k, v in algorithm.policy.state_dict().items()}
    algorithm._train_discriminator(played)
    moved = {k for k, v in algorithm.policy.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(name.startswith("discriminator.") for name in moved)


@pytest.mark.parametrize("kind", ["dense", "final"])
def test_the_policy_comes_to_write_what_was_shown(kind: str) -> None:
    """The task's answer is "b" and the end, whatever the prompt. The game has no rest, so some stretch of it counts."""
    algorithm = toy_algorithm(
        GAIL,
        toy_vector(32, max_new_tokens=3),
        seed=1,
        discriminator_reward=kind,
        discriminator_learning_rate=1e-3,
        learning_rate=3e-3,
        kl_coef=0.0,
        ent_coef=0.01,
        batch_size=16,
        n_epochs=2,
    )
    shares: list[float] = []

    def look(found: Any) -> None:
        shares.append(float(np.mean([e.tokens == [4, 1] for e in found.rollout_buffer.episodes])))

    algorithm.learn(5000, callback=AtEnd(look))
    stretches = [np.mean(shares[i : i + 8]) for i in range(0, len(shares), 8)]
    assert stretches[0] < 0.1
    assert max(stretches) > 0.6


class AtEnd(BaseCallback):
    """Calls a function with the algorithm at the end of every rollout."""

    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.look(self.model)


def test_bad_input() -> None:
    for settings, message in (
        ({"discriminator_reward": "sparse"}, "Expected `discriminator_reward` to be one of"),
        ({"discriminator_updates": -1}, "discriminator_updates"),
        ({"rollout_samples": 0}, "rollout_samples"),
        ({"targets": "references"}, "have no references"),
    ):
        with pytest.raises(ValueError, match=message):
            toy_algorithm(GAIL, **settings)
    with pytest.raises(ValueError, match="where somebody replies"):
        toy_algorithm(GAIL, toy_vector(4, Chat()), discriminator_reward="rollout")
    with pytest.raises(ValueError, match="a CausalLMPolicy"):
        GAIL("Seq2SeqLMPolicy", toy_vector(4), policy_kwargs={"model": tiny_t5(vocab_size=len(WORDS))}, device="cpu")
