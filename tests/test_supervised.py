"""SFT, distillation, demonstrations and augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_fixtures import WORDS, Chat, Echo, policy_of, tiny_gpt2, tiny_t5, toy_algorithm, toy_vector, word_tokenizer

from textgym import Example, TextGymError
from textgym.envs.episodes import make_setting
from textgym_agents import SFT, Distillation
from textgym_agents.algorithms.augmentation import Augmentation, vary
from textgym_agents.algorithms.demonstrations import TextWindows, demonstrations
from textgym_agents.losses import distillation_loss
from textgym_agents.rollouts.buffers import Sequences

V = len(WORDS)
END = WORDS.index("<|endoftext|>")
TEACHER = tiny_gpt2(5, vocab_size=V, scale=0.5)


def setting_of(task: Any = None, **kwargs: Any) -> Any:
    return make_setting(task or Echo(), tokenizer=word_tokenizer(), **kwargs)


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


# ---- what is learned from --------------------------------------------------------------------------------------------


def test_demonstrations_are_the_tasks_answers_or_references() -> None:
    rng = np.random.default_rng(0)
    examples = [Example("a b", ("c d", "e")), Example("f")]
    answers = demonstrations(setting_of(), examples, False, rng).episodes()
    assert [(e.prompt, e.tokens, e.chosen) for e in answers] == [
        (ids("a b"), [*ids("b"), END], [True, True]),
        (ids("f"), [*ids("b"), END], [True, True]),
    ]
    drawn = {tuple(demonstrations(setting_of(), examples, True, rng).episodes()[0].tokens) for _ in range(20)}
    assert drawn == {(*ids("c d"), END), (*ids("e"), END)}
    without = demonstrations(setting_of(), examples, True, rng).episodes()[1]
    assert without.tokens == [*ids("b"), END]  # the second example has no reference


def test_demonstrations_keep_to_the_budget_and_the_minimum() -> None:
    rng = np.random.default_rng(0)
    long = [Example("a", ("b c d e f b c d e f b c",))]
    (cut,) = demonstrations(setting_of(max_new_tokens=4), long, True, rng).episodes()
    assert cut.tokens == ids("b c d e")
    (padded,) = demonstrations(setting_of(min_new_tokens=3), [Example("a")], False, rng).episodes()
    assert padded.tokens == [*ids("b"), END, END, END]


class Talkative(Chat):
    """Its answer takes two turns, and a reply comes in between."""

    def oracle(self, example: Example) -> str:
        return "b ! d !"


def test_replies_are_in_demonstrations_and_are_not_learned() -> None:
    found = demonstrations(setting_of(Talkative()), [Example("a"), Example("b c")], False, np.random.default_rng(0))
    for episode in found.episodes():
        own = [t for t, chosen in zip(episode.tokens, episode.chosen, strict=True) if chosen]
        assert own == [*ids("b ! d !"), END]
        assert not all(episode.chosen)
        assert episode.chosen[-1]


def test_targets() -> None:
    own = toy_algorithm(SFT, toy_vector(2, prompts=[{"prompt": "a", "references": ["e e"]}]))
    own.learn(1)
    assert own.rollout_buffer.episodes[0].tokens == [*ids("e e"), END]
    told = toy_algorithm(SFT, toy_vector(2, prompts=[{"prompt": "a", "references": ["e e"]}]), targets="oracle")
    told.learn(1)
    assert told.rollout_buffer.episodes[0].tokens == [*ids("b"), END]
    with pytest.raises(
        ValueError, match=r"Expected `targets` to be 'oracle': the prompts of TextGen-Echo-v0 have no ref"
    ):
        toy_algorithm(SFT, targets="references")
    with pytest.raises(ValueError, match=r"Expected `targets` to be one of .*, actual value: 'best'"):
        toy_algorithm(SFT, targets="best")


# ---- SFT -------------------------------------------------------------------------------------------------------------


def test_its_gradient_is_that_of_the_mean_negative_log_likelihood() -> None:
    sft = toy_algorithm(SFT, batch_size=6, micro_batch_tokens=8)
    rows = [("a b", "c d e"), ("f", "b"), ("a a a", "d")]
    batch = Sequences.of([ids(p) for p, _ in rows], [[*ids(c), END] for _, c in rows], None)
    numbers = sft._accumulate(batch)
    found = {n: p.grad.clone() for n, p in sft.policy.named_parameters() if p.grad is not None}
    sft.policy.optimizer.zero_grad()
    total, count = torch.zeros(()), 0
    for prompt, completion in rows:
        written = [*ids(completion), END]
        for i, token in enumerate(written):
            logits = sft.policy.model(input_ids=torch.tensor([ids(prompt) + written[:i]])).logits[0, -1]
            total, count = total - logits.log_softmax(-1)[token], count + 1
    (total / count).backward()
    assert numbers["nll"] == pytest.approx(float(total / count), abs=1e-5)
    for name, parameter in sft.policy.named_parameters():
        if parameter.grad is not None and not name.startswith("value_head"):
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_it_learns_the_answers() -> None:
    sft = toy_algorithm(SFT)
    logged = []
    for tokens in (100, 4000):
        sft.learn(tokens, reset_num_timesteps=False)
        logged.append(sft.logger.name_to_value["train/perplexity"])
    assert logged[0] > logged[-1]
    assert logged[-1] < 1.2
    observations, _ = toy_vector(3).reset(seed=0)
    assert (sft.predict(observations, deterministic=True)[0] == ids("b")[0]).all()


def test_an_encoder_decoder_model_and_a_task_with_replies() -> None:
    other = SFT(
        "Seq2SeqLMPolicy",
        toy_vector(4),
        learning_rate=3e-3,
        policy_kwargs={"model": tiny_t5(vocab_size=V)},
        device="cpu",
    )
    other.learn(1200)
    assert other.logger.name_to_value["train/perplexity"] < 1.5
    chat = toy_algorithm(SFT, toy_vector(4, Talkative()), learning_rate=3e-3)
    chat.learn(1500)
    assert chat.logger.name_to_value["train/perplexity"] < 1.5


def test_pre_training_from_a_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a b c\nd e f\n\n  \n" + "a b c d e f\n\n" * 20, encoding="utf-8")
    windows = TextWindows(file, setting_of())
    assert windows.tokens[:8].tolist() == [END, *ids("a b c d e f"), END]
    drawn = windows.draw(50, np.random.default_rng(0))
    text = windows.tokens.tolist()
    for e in drawn.episodes():
        assert len(e.prompt) == 1
        row = e.prompt + e.tokens
        assert len(row) == setting_of().width
        assert any(text[i : i + len(row)] == row for i in range(len(text)))
    sft = toy_algorithm(SFT, text=str(file), learning_rate=3e-3)
    sft.learn(8000)
    assert sft.logger.name_to_value["train/perplexity"] < 1.4
    with pytest.raises(TextGymError, match=r"Could not read '.*none.txt' as a text file"):
        toy_algorithm(SFT, text=str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TextGymError, match="as a text file"):
        toy_algorithm(SFT, text=str(tmp_path / "bytes.txt"))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(TextGymError, match="nothing but white space"):
        toy_algorithm(SFT, text=str(tmp_path / "empty.txt"))
    with pytest.raises(ValueError, match="None where a text is given"):
        toy_algorithm(SFT, text=str(file), augmentation={"deletion": 0.1})


# ---- augmentation ----------------------------------------------------------------------------------------------------


def test_words_are_left_out_replaced_and_added_as_often_as_asked() -> None:
    rng, text = np.random.default_rng(0), " ".join(["w"] * 4000)
    deleted = vary(text, ["x"], 0.0, 0.25, 0.0, rng).split()
    assert len(deleted) == pytest.approx(3000, abs=100)
    replaced = vary(text, ["x"], 0.0, 0.0, 0.25, rng).split()
    assert len(replaced) == 4000
    assert replaced.count("x") == pytest.approx(1000, abs=100)
    added = vary(text, ["x"], 0.25, 0.0, 0.0, rng).split()
    assert added.count("w") == 4000
    assert added.count("x") == pytest.approx(1000, abs=100)


def test_white_space_stays_and_something_is_always_left() -> None:
    rng = np.random.default_rng(0)
    assert vary("  a\n\tb  c\n", ["x"], 0.0, 0.0, 0.0, rng) == "  a\n\tb  c\n"
    assert {vary("a b", ["x"], 0.0, 0.999, 0.0, rng).strip() for _ in range(30)} <= {"a", "b"}
    assert vary("", [], 0.5, 0.5, 0.5, rng) == ""


def test_augmentation_of_examples() -> None:
    def shout(texts: list[str]) -> Sequence[str]:
        return [t.upper() for t in texts]

    examples = [Example("a b", ("c",), {"k": 1}), Example("d")]
    rng = np.random.default_rng(0)
    both = Augmentation(sides="both", back_translation=shout)(examples, rng)
    assert both == [Example("A B", ("C",), {"k": 1}), Example("D")]
    assert Augmentation(sides="references", back_translation=shout)(examples, rng)[0] == Example(
        "a b", ("C",), {"k": 1}
    )
    assert Augmentation(back_translation=shout)(examples, rng)[0] == Example("A B", ("c",), {"k": 1})
    for settings, error, message in (
        ({"insertion": 1.5}, ValueError, r"augmentation\['insertion'\]"),
        ({"deletion": 1}, ValueError, "below 1: no word would be left"),
        ({"sides": "left"}, ValueError, "one of"),
        ({"back_translation": 3}, TypeError, "a function"),
        ({"deletions": 0.1}, ValueError, "a dict with some of"),
    ):
        with pytest.raises(error, match=message):
            toy_algorithm(SFT, augmentation=settings)
    with pytest.raises(ValueError, match="2 texts"):
        Augmentation(back_translation=lambda texts: texts[:1])(examples, rng)


def test_a_prompt_that_would_get_too_long_stays_as_it_was() -> None:
    sft = toy_algorithm(SFT, toy_vector(8, prompts=["a b c d e f"]), augmentation={"insertion": 1.0})
    sft.learn(1)
    assert {tuple(e.prompt) for e in sft.rollout_buffer.episodes} == {tuple(ids("a b c d e f"))}


# ---- distillation ----------------------------------------------------------------------------------------------------


def test_distillation_loss_by_hand_and_against_a_loop() -> None:
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(3), 0.0]])
    wanted = 0.75 * math.log(0.75 / 0.25) + 0.25 * math.log(0.25 / 0.75)
    assert float(distillation_loss(student, teacher, 1.0)) == pytest.approx(wanted, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(7, 5, generator=generator) for _ in range(2))
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        p, q = (a / 2).softmax(-1), (b / 2).softmax(-1)
        total += sum(float(q[i] * (q[i].log() - p[i].log())) for i in range(5))
    assert float(distillation_loss(student, teacher, 2.0)) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_gradient_of_word_level_distillation(alpha: float) -> None:
    algorithm = toy_algorithm(
        Distillation, teacher=TEACHER, alpha=alpha, distillation_temperature=2.0, micro_batch_tokens=8
    )
    rows = [("a b", "c d e"), ("f", "b")]
    batch = Sequences.of([ids(p) for p, _ in rows], [[*ids(c), END] for _, c in rows], None)
    numbers = algorithm._accumulate(batch)
    found = {n: p.grad.clone() for n, p in algorithm.policy.named_parameters() if p.grad is not None}
    algorithm.policy.optimizer.zero_grad()
    nll, distance, count = torch.zeros(()), torch.zeros(()), 0
    for prompt, completion in rows:
        written = [*ids(completion), END]
        for i, token in enumerate(written):
            prefix = torch.tensor([ids(prompt) + written[:i]])
            own, other = algorithm.policy.model(input_ids=prefix).logits[0, -1], TEACHER(input_ids=prefix).logits[0, -1]
            p, q = (own / 2).log_softmax(-1), (other / 2).log_softmax(-1).detach()
            distance = distance + (q.exp() * (q - p)).sum()
            nll, count = nll - own.log_softmax(-1)[token], count + 1
    ((alpha * 4 * distance + (1 - alpha) * nll) / count).backward()
    assert numbers["teacher_kl"] == pytest.approx(float(distance / count), abs=1e-5)
    for name, parameter in algorithm.policy.named_parameters():
        if parameter.grad is not None and not name.startswith("value_head"):
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", ["word", "sequence"])
def test_the_student_comes_near_the_teacher(level: str) -> None:
    algorithm = toy_algorithm(Distillation, teacher=TEACHER, level=level, alpha=1.0)

    assert algorithm.limits is not None
    forbidden = list(algorithm.limits.forbidden)  # the teacher does not write these, whatever it thinks of them

    def distance() -> float:
        """Mean KL of the teacher to the student at the first token, in nats."""
        prefixes, found = [ids("a b"), ids("c d e"), ids("f e d c"), ids("f"), ids("b b")], 0.0
        for prefix in prefixes:
            row = torch.tensor([prefix])
            with torch.no_grad():
                q, p = (m(input_ids=row).logits[0] for m in (TEACHER, algorithm.policy.model))
            for logits in (p, q) if level == "sequence" else ():
                logits[:, forbidden] = -1e4
            found += float(distillation_loss(p[-1:], q[-1:], 1.0)) / len(prefixes)
        return found

    before = distance()
    algorithm.learn(6000)
    assert distance() < 0.6 * before


def test_the_teacher_writes_what_is_learned() -> None:
    greedy = toy_algorithm(Distillation, teacher=TEACHER, level="sequence", teacher_top_k=1)
    greedy.learn(1)
    teacher = policy_of(TEACHER, limits=greedy.limits, vocab_size=V)
    for episode in greedy.rollout_buffer.episodes:
        assert episode.tokens == teacher.generate([episode.prompt], deterministic=True)[0]


def test_bad_arguments() -> None:
    for settings, error, message in (
        ({"level": "letter"}, ValueError, "Expected `level` to be one of"),
        ({"alpha": 1.1}, ValueError, "alpha"),
        ({"distillation_temperature": 0}, ValueError, "distillation_temperature"),
        ({"teacher_top_k": -1}, ValueError, "teacher_top_k"),
        ({"teacher": 3}, TypeError, "model"),
        ({"teacher": tiny_gpt2(vocab_size=V - 1)}, TextGymError, "vocab"),
        ({"kl_coef": 0.1}, TypeError, "Distillation takes no kl_coef: it does not play"),
    ):
        with pytest.raises(error, match=message):
            toy_algorithm(Distillation, **{"teacher": TEACHER, **settings})
    with pytest.raises(ValueError, match="'word' where somebody replies"):
        toy_algorithm(Distillation, toy_vector(2, Talkative()), teacher=TEACHER, level="sequence")
