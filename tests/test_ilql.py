"""ILQL: its loss against a loop, writing by weighted advantages, data sets, and an environment that is left alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, Chat, tiny_gpt2, tiny_t5, toy_algorithm, toy_vector
from test_ppo import Call, Keep, differ
from test_rollout import collect

from textgym.core import TextGymError
from textgym.prompts import PromptError
from textgym_agents import ILQL, PPO
from textgym_agents.policies import CausalLMPolicy
from textgym_agents.rollouts.buffers import Sequences
from textgym_agents.rollouts.records import read_episodes
from textgym_agents.rollouts.sampling import Decoding

V = len(WORDS)
RECORDS: list[dict[str, Any]] = [
    {"prompt": "a b c", "completion": "d e", "reward": 1},
    {"prompt": "b", "completion": "f f f f f f f f f f", "reward": 0.25},
    {"prompt": "c c", "completion": "! a", "reward": -0.5},
]


def with_values(algorithm: ILQL) -> ILQL:
    """Heads and slow heads that are not 0, and not each other's."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in [*algorithm.policy.action_values.parameters(), *algorithm.target.parameters()]:
            parameter += 0.2 * torch.randn_like(parameter)
        torch.nn.init.normal_(algorithm.policy.value_head.weight, std=0.3)
    return algorithm


# ---- loss ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [None, Chat()], ids=["one speaker", "two speakers"])
def test_the_loss_equals_a_slow_loop(task: Any) -> None:
    settings = {"gamma": 0.9, "expectile": 0.8, "cql_coef": 0.3, "bc_coef": 0.7}
    algorithm = with_values(toy_algorithm(ILQL, toy_vector(5, task, min_new_tokens=3), **settings))
    collect(algorithm)  # type: ignore[arg-type]
    part = algorithm.rollout_buffer.sequences
    loss, numbers = algorithm._loss(part)
    model, limits = algorithm.policy.model, algorithm.limits
    assert limits is not None
    q_loss, v_loss, cql_loss, bc_loss, count = 0.0, 0.0, 0.0, 0.0, 0
    with torch.no_grad():
        for episode in part.episodes():
            own = [t for t, chosen in enumerate(episode.chosen) if chosen]
            states = []
            for t in own:
                prefix = torch.tensor([episode.prompt + episode.tokens[:t]])
                states.append(model.base_model(prefix).last_hidden_state[0, -1])
            values = [float(algorithm.policy.value_head(h)) for h in states] + [0.0]
            for k, (t, hidden) in enumerate(zip(own, states, strict=True)):
                token, allowed = episode.tokens[t], limits.mask(torch.tensor([k]))[0]
                target = episode.rewards[t] + 0.9 * values[k + 1]
                for head in algorithm.policy.action_values.heads:
                    q = head(hidden)
                    q_loss += (float(q[token]) - target) ** 2
                    cql_loss -= float(q.masked_fill(~allowed, -torch.inf).log_softmax(-1)[token])
                u = min(float(head(hidden)[token]) for head in algorithm._target_values.heads) - values[k]
                v_loss += abs(0.8 - (u < 0)) * u**2
                logits = model.get_output_embeddings()(hidden).masked_fill(~allowed, -torch.inf)
                bc_loss -= float(logits.log_softmax(-1)[token])
                count += 1
    wanted = {"q_loss": q_loss, "v_loss": v_loss, "cql_loss": cql_loss, "bc_loss": bc_loss}
    for name, total in wanted.items():
        assert numbers[name] == pytest.approx(total / count, rel=1e-4), name
    assert loss.item() == pytest.approx((q_loss + v_loss + 0.3 * cql_loss + 0.7 * bc_loss) / count, rel=1e-4)


def test_targets_and_slow_heads_have_no_gradient() -> None:
    algorithm = with_values(toy_algorithm(ILQL))
    collect(algorithm)  # type: ignore[arg-type]
    algorithm._loss(algorithm.rollout_buffer.sequences)[0].backward()
    assert all(p.grad is None for p in algorithm.target.parameters())
    assert all(p.grad is not None for p in algorithm.policy.action_values.parameters())


def test_values_train_the_model_unless_it_is_to_stay() -> None:
    def slope(bc_coef: float) -> float:
        algorithm = with_values(toy_algorithm(ILQL, bc_coef=bc_coef))
        collect(algorithm)  # type: ignore[arg-type]
        algorithm._loss(algorithm.rollout_buffer.sequences)[0].backward()
        grads = [p.grad for p in algorithm.policy.model.parameters() if p.grad is not None]
        return max((float(g.abs().max()) for g in grads), default=0.0)

    assert slope(1e-9) > 1e-4  # not by the fourth term
    assert slope(0.0) == 0.0


def test_without_supervised_learning_the_language_model_stays() -> None:
    algorithm = toy_algorithm(ILQL, learning_starts=50, batch_size=4, bc_coef=0.0)
    before = {k: v.clone() for k, v in algorithm.policy.state_dict().items()}
    changed = differ(before, algorithm.learn(150).policy.state_dict())
    assert changed
    assert not [name for name in changed if name.startswith("model.")]


# ---- writing ---------------------------------------------------------------------------------------------------------------


def advantages_after(algorithm: ILQL, prefix: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's own logits, and ``min Q - V``, by definition."""
    policy, model = algorithm.policy, algorithm.policy.model
    with torch.no_grad():
        hidden = model.base_model(torch.tensor([prefix])).last_hidden_state[0, -1]
        first, second = (head(hidden) for head in policy.action_values.heads)
        return model(torch.tensor([prefix])).logits[0, -1], torch.minimum(first, second) - policy.value_head(hidden)


def test_every_way_of_writing_weighs_advantages() -> None:
    algorithm = with_values(toy_algorithm(ILQL, advantage_weight=6.0))
    policy = algorithm.policy
    prefix = [3, 4, 5]
    own, advantages = advantages_after(algorithm, prefix)
    assert algorithm.limits is not None
    allowed = algorithm.limits.mask(torch.tensor([0]))[0]
    wanted = (own + 6.0 * advantages).masked_fill(~allowed, -torch.inf)
    assert int(wanted.argmax()) != int(own.masked_fill(~allowed, -torch.inf).argmax()), "advantages must matter here"
    width = algorithm.observation_space["input_ids"].shape[0]  # type: ignore[index]
    observation = {
        "input_ids": np.array([0] * (width - 3) + prefix),
        "attention_mask": np.array([0] * (width - 3) + [1] * 3, dtype=np.int8),
        "completion_mask": np.zeros(width, dtype=np.int8),
    }
    assert int(algorithm.predict(observation, deterministic=True)[0]) == int(wanted.argmax())
    assert policy.generate([prefix], deterministic=True)[0][0] == int(wanted.argmax())
    tensors = {k: torch.as_tensor(v)[None] for k, v in observation.items()}
    log_probs = policy._read(tensors)[0][0]
    torch.testing.assert_close(log_probs[allowed], wanted.log_softmax(-1)[allowed], rtol=0, atol=1e-4)
    batch = Sequences.of([prefix], [[int(wanted.argmax())]], algorithm.limits)
    found = policy.evaluate_sequences(batch, 1.0)[0]
    assert float(found[0, 0].detach()) == pytest.approx(float(wanted.log_softmax(-1).max()), abs=1e-4)
    policy.advantage_weight = 0.0
    assert int(algorithm.predict(observation, deterministic=True)[0]) == int(own[allowed].argmax()) + int(
        (~allowed)[:1]
    )
    assert policy.generate([prefix], num_beams=2, decoding=Decoding())


@pytest.mark.parametrize("decoding", [{}, {"temperature": 0.7, "top_k": 6, "top_p": 0.8}])
def test_rollouts_record_the_distribution_that_they_draw_from(decoding: dict[str, Any]) -> None:
    algorithm = with_values(toy_algorithm(ILQL, **decoding))
    collect(algorithm)  # type: ignore[arg-type]
    part = algorithm.rollout_buffer.sequences
    with torch.no_grad():
        log_probs, _, entropies = algorithm.policy.evaluate_sequences(
            part, algorithm.decoding.temperature, entropies=True
        )
    torch.testing.assert_close(log_probs, part.log_probs, rtol=0, atol=1e-4)
    torch.testing.assert_close(entropies, part.entropies, rtol=0, atol=1e-4)
    assert float((log_probs - part.log_probs).abs().max()) < float(part.log_probs.abs().max())


def test_encoder_decoder_models_have_values_too() -> None:
    env, policy_kwargs = toy_vector(4), {"model": tiny_t5(vocab_size=V)}
    algorithm = ILQL(
        "Seq2SeqLMPolicy", env, learning_starts=30, batch_size=4, policy_kwargs=policy_kwargs, device="cpu"
    )
    before = {k: v.clone() for k, v in algorithm.policy.action_values.state_dict().items()}
    assert differ(before, algorithm.learn(100).policy.action_values.state_dict())


# ---- data ------------------------------------------------------------------------------------------------------------------


def forbid_playing(algorithm: ILQL) -> None:
    def step(*_: Any) -> None:
        raise AssertionError("the environment was played")

    assert algorithm.env is not None
    algorithm.env.step = step  # type: ignore[method-assign,assignment]


def test_the_environment_is_left_alone_once_there_is_data() -> None:
    algorithm, keep = toy_algorithm(ILQL, learning_starts=100, batch_size=4), Keep()
    algorithm.set_logger(keep)
    algorithm.learn(99)
    assert 100 <= algorithm.replay.num_tokens == algorithm.num_timesteps < 170
    assert algorithm._n_updates == 0
    known = len(algorithm.replay)
    forbid_playing(algorithm)
    steps: list[int] = []
    algorithm.learn(200, callback=Call(2, lambda a: steps.append(a.num_timesteps) or True))  # type: ignore[func-returns-value]
    assert len(algorithm.replay) == known
    assert algorithm.num_timesteps >= 200
    assert steps[0] < 80, "a step is a minibatch"
    assert algorithm._n_updates > 4


def test_records_become_episodes() -> None:
    algorithm = toy_algorithm(ILQL, dataset=RECORDS, batch_size=2)
    forbid_playing(algorithm)
    held = algorithm.replay.sequences
    assert held is not None
    word = {w: i for i, w in enumerate(WORDS)}
    found = held.episodes()
    assert [e.prompt for e in found] == [[word[w] for w in r["prompt"].split()] for r in RECORDS]
    texts = [[word[w] for w in r["completion"].split()] for r in RECORDS]
    assert [e.tokens for e in found] == [[*texts[0], 1], texts[1], [*texts[2], 1]]
    assert [sum(e.rewards) for e in found] == [e.rewards[-1] for e in found] == [1, 0.25, -0.5]
    algorithm.learn(60)
    assert algorithm._n_updates > 5


def test_files_and_saving(tmp_path: Path) -> None:
    file = tmp_path / "rated.jsonl.gz"
    with gzip.open(file, "wt") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in RECORDS)
    algorithm = toy_algorithm(ILQL, dataset=str(file), batch_size=2).learn(30)
    algorithm.save(tmp_path / "saved")
    file.unlink()
    loaded = ILQL.load(tmp_path / "saved", env=toy_vector(8), device="cpu")
    forbid_playing(loaded)
    assert len(loaded.replay) == 3
    a, b = (x.learn(30, reset_num_timesteps=False).policy.state_dict() for x in (algorithm, loaded))
    assert not differ(dict(a), dict(b))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "Expected `dataset` to be at least one record"),
        ([{"prompt": "a"}], "Expected record 1 of `dataset` to have"),
        ([RECORDS[0], {**RECORDS[0], "reward": "good"}], "Expected 'reward' of record 2 of `dataset` to be a number"),
        ([{**RECORDS[0], "reward": float("nan")}], "to be finite"),
        ([{**RECORDS[0], "completion": 3}], "Expected 'completion' of record 1 of `dataset` to be a text"),
        (
            [{**RECORDS[0], "completion": "a " * 11}],
            "Expected a completion of at most max_new_tokens=10 tokens in record 1",
        ),
        ([{**RECORDS[0], "prompt": "a " * 7}], "Expected a prompt of 1 to max_prompt_tokens=6 tokens"),
        ("no/such/file.jsonl", "there is no file"),
    ],
)
def test_bad_data(dataset: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        toy_algorithm(ILQL, dataset=dataset)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expectile": 1.0}, "Expected `expectile` to be in \\(0, 1\\)"),
        ({"expectile": 0}, "Expected `expectile` to be in \\(0, 1\\)"),
        ({"cql_coef": -1}, "Expected `cql_coef`"),
        ({"bc_coef": -1}, "Expected `bc_coef`"),
        ({"advantage_weight": -1}, "Expected `advantage_weight`"),
        ({"n_step": 0}, "Expected `n_step`"),
        ({"rollout_backend": "vllm"}, "Expected `rollout_backend` to be 'transformers' with ILQL"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_algorithm(ILQL, **settings)


def test_a_policy_without_values_is_refused() -> None:
    with pytest.raises(TypeError, match="a subclass of ActionValuePolicy"):
        ILQL(CausalLMPolicy, toy_vector(2), policy_kwargs={"model": tiny_gpt2(vocab_size=V)})
    assert PPO.policy_aliases["CausalLMPolicy"] is CausalLMPolicy
    with pytest.raises(TextGymError, match="an environment of textgym where `dataset` is given"):
        read_episodes(RECORDS, None)
