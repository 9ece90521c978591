"""Answer, Entities, Describe, Concepts: answers that follow from the passage, tags, slots, words."""

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textgym.core import Completion, Example, TextGymError
from textgym.metrics.entities import parse_entities
from textgym.prompts import load_prompts
from textgym.tasks import Task, concepts
from textgym.tasks._answer_words import KINDS, WOMEN
from textgym.tasks._concepts_words import ANIMAL_DEEDS, ANIMALS, DEEDS, NATURES, PEOPLE, PLACES, STATES, third_person
from textgym.tasks._describe_words import VALUES, families, plain
from textgym.tasks._writing import NAMES
from textgym.tasks.answer import AnswerTask, passage_prompt
from textgym.tasks.concepts import ConceptsTask, GivenWords, OneSentence, concepts_prompt, given_words
from textgym.tasks.describe import DescribeTask, Faithful, SlotCoverage, TableParent, parse_table
from textgym.tasks.entities import EntitiesTask

ANSWER, ENTITIES, DESCRIBE, CONCEPTS = AnswerTask(), EntitiesTask(), DescribeTask(), ConceptsTask()
TASKS = (ANSWER, ENTITIES, DESCRIBE, CONCEPTS)
LEVELS = ("easy", "normal", "hard")
by_level = pytest.mark.parametrize("level", LEVELS)
by_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)


def examples(task: Task, level: str, count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [task.sample(rng, level) for _ in range(count)]


def answered(example: Example, text: str) -> Completion:
    return Completion(example.prompt, text, example.references, example.meta, finish_reason="stop")


def rewards(task: Task, drawn: Sequence[Example], texts: Sequence[str]) -> np.ndarray:
    return task.reward()([answered(e, text) for e, text in zip(drawn, texts, strict=True)])


def reward_of(task: Task, example: Example, text: str) -> float:
    return float(rewards(task, [example], [text])[0])


# ---- what they share ------------------------------------------------------------------------------------------------


@by_level
@by_task
def test_prompts_and_references(task: Task, level: str) -> None:
    for example in examples(task, level, 1500):
        text = "\n".join((example.prompt, *example.references))
        assert example.prompt.count("\n") == task.template.count("\n") + (task is ANSWER)
        assert not re.search(r"[{}]|  |\.\.|\b[aA] [aeiou]| $|^ |\b(\w+) \1\b", text), text
        assert len(set(example.references)) == len(example.references)
        json.dumps(dict(example.meta))


@pytest.mark.parametrize(
    ("task", "low", "high"), [(ANSWER, 0.68, 0.78), (ENTITIES, 0.5, 0.65), (DESCRIBE, 0.45, 0.65), (CONCEPTS, 0.4, 0.6)]
)
def test_share_of_right_documents(task: Task, low: float, high: float) -> None:
    right = 0
    rng = np.random.default_rng(0)
    first = {ANSWER: "Answer:", ENTITIES: "Tagged:", DESCRIBE: "Text:", CONCEPTS: "Sentence:"}[task]
    known: dict[str, Example] = {}
    sample = task.sample
    try:  # `document` draws its prompt with `sample` (but for Concepts, whose prompt says it all)
        task.sample = lambda *args: known.setdefault("last", sample(*args))  # type: ignore[method-assign]
        for _ in range(1000):
            known.clear()
            document = task.document(rng)
            prompt, text = document.split(f"\n{first}")
            example = known.get("last", Example(f"{prompt}\n{first}"))
            assert document == example.prompt + text and re.match(r" \S", text) and "\n" not in text
            if task is DESCRIBE:  # the forms of sentence that are no references
                right += min(part([answered(example, text)])[0] for part in (SlotCoverage(), Faithful())) == 1
            else:
                right += bool(task.is_success(answered(example, text)))
    finally:
        del task.sample
    assert low < right / 1000 < high


@pytest.mark.parametrize("task", [ANSWER, ENTITIES], ids=lambda task: task.id)
def test_texts_of_a_user(task: Task) -> None:
    record: dict[str, Any] = {"prompt": "Two dogs run {fast} .", "references": ["[ANIMAL Two dogs] run"], "source": 3}
    example = load_prompts([record], task, "train", "normal").examples[0]  # type: ignore[attr-defined]
    assert example.prompt == task.template.replace("{prompt}", record["prompt"])
    assert task.oracle(example) == " [ANIMAL Two dogs] run"
    assert reward_of(task, example, task.oracle(example)) == 1
    assert task.is_success(answered(example, task.oracle(example))) is True
    bare = Example("Two dogs run.")
    assert task.oracle(bare) == "" and task.is_success(answered(bare, " x")) is None
    with pytest.raises(TextGymError, match="Two dogs run"):
        task.reward()([answered(bare, " x")])


# ---- answer ---------------------------------------------------------------------------------------------------------


def read(passage: str) -> tuple[list[tuple[str, str]], dict[str, str], dict[str, str]]:
    """Facts (person, predicate), links ("Anna's boss": person) and places (thing: what it is in), pronouns resolved."""
    facts, links, places = [], {}, {}
    person = ""
    for sentence in re.split(r"\. ?", passage)[:-1]:
        if found := re.fullmatch(r"The (\w+) is in the (\w+)", sentence):
            places[found[1]] = found[2]
        elif found := re.fullmatch(r"(\w+'s .+) is (\w+)", sentence):
            links[found[1]] = found[2]
        else:
            who, said = sentence.split(" ", 1)
            if who in ("He", "She"):
                assert (who == "She") == (person in WOMEN)
            else:
                person = who
            facts.append((person, said))
    return facts, links, places


def solve(prompt: str) -> str:
    """The answer, found without the generator's help."""
    passage, question, _ = prompt.split("\n")
    facts, links, places = read(passage.removeprefix("Passage: "))
    question = question.removeprefix("Question: ")
    if found := re.fullmatch(r"Which room is the (\w+) in\?", question):
        return places[places[found[1]]]
    for kind in KINDS:
        predicate = re.escape(kind.says).replace(r"\{value\}", "(.+)")
        if found := re.fullmatch(re.escape(kind.asks).replace(r"\{who\}", "(.+)"), question):
            who = links.get(found[1], found[1])
            assert who in NAMES
            (value,) = [m[1] for name, said in facts if name == who and (m := re.fullmatch(predicate, said))]
            return value
    (name,) = [name for name, said in facts if question == f"Who {said}?"]
    return name


@by_level
def test_answers_follow_from_the_passage(level: str) -> None:
    for example in examples(ANSWER, level, 1500):
        (answer,) = example.references
        assert answer == solve(example.prompt)
        passage = example.prompt.split("\n")[0]
        assert re.search(rf"\b{re.escape(answer)}\b", passage) and 1 <= len(answer.split()) <= 3
        assert all(re.search(rf"\b{re.escape(c)}\b", passage) for c in example.meta["candidates"])
        assert answer not in example.meta["candidates"]


def test_levels_of_questions() -> None:
    sentences = {level: {e.prompt.split("\n")[0].count(".") for e in examples(ANSWER, level, 300)} for level in LEVELS}
    assert sentences == {"easy": {2}, "normal": {3}, "hard": {4}}
    kinds = {level: {e.meta["kind"] for e in examples(ANSWER, level, 300)} for level in LEVELS}
    assert kinds == {"easy": {"fact"}, "normal": {"fact", "who"}, "hard": {"two-hop"}}


@by_level
def test_cheating_with_answers(level: str) -> None:
    drawn = examples(ANSWER, level, 200)
    assert rewards(ANSWER, drawn, [ANSWER.oracle(e) for e in drawn]).min() == 1
    cheats = {
        "distractor": [f" {e.meta['candidates'][0]}" for e in drawn],
        "all": [" " + " ".join([e.references[0], *e.meta["candidates"]]) for e in drawn],
        "passage": [e.prompt.split("\n")[0].removeprefix("Passage:") for e in drawn],
        "sentence": [f" It is {e.references[0]}." for e in drawn],
    }
    scores = {name: rewards(ANSWER, drawn, texts).mean() for name, texts in cheats.items()}
    assert max(scores.values()) < 0.45 and scores["distractor"] < 0.08
    several = [e for e in drawn if len(e.references[0].split()) > 1]
    backwards = [" " + " ".join(reversed(e.references[0].split())) for e in several]
    assert len(several) > 80 and rewards(ANSWER, several, backwards) == pytest.approx(0.5)


def test_parts_of_the_reward_for_answers() -> None:
    example = Example(passage_prompt(" Anna has two cats. ", "What pets does Anna have? "), ("two cats", "cats"))
    assert example.prompt == "Passage: Anna has two cats.\nQuestion: What pets does Anna have?\nAnswer:"
    assert example.prompt == ANSWER.template.format(prompt=example.prompt.removesuffix("\nAnswer:"))
    total, parts = ANSWER.reward().parts([answered(example, " Two black cats.")])
    assert {name: float(score[0]) for name, score in parts.items()} == pytest.approx(
        {"token_f1": 0.8, "exact_match": 0}
    )
    assert total[0] == pytest.approx(0.4)
    assert ANSWER.is_success(answered(example, " Two cats.")) and not ANSWER.is_success(answered(example, " two"))


# ---- entities -------------------------------------------------------------------------------------------------------


@by_level
def test_tags(level: str) -> None:
    types = Counter[str]()
    for example in examples(ENTITIES, level, 1500):
        tagged = parse_entities(example.references[0])
        assert example.prompt == f"Text: {' '.join(tagged.words)}\nTagged:"
        found = sorted((start, kind, " ".join(tagged.words[start:end])) for kind, start, end in tagged.entities)
        assert [[kind, name] for _, kind, name in found] == example.meta["entities"]
        assert 1 <= len(found) <= 4 and 4 <= len(tagged.words) <= 15 and tagged.words[-1] == "."
        assert max(len(name.split()) for _, _, name in found) <= (1 if level == "easy" else 2)
        types.update(kind for _, kind, _ in found)
    assert set(types) == {"PER", "LOC", "ORG", *(("DATE", "MISC") if level == "hard" else ())}
    assert min(types.values()) > 0.04 * types.total()


def test_hard_names_have_several_types() -> None:
    def seen(level: str) -> dict[str, set[str]]:
        types = defaultdict(set)
        for example in examples(ENTITIES, level, 3000):
            for kind, name in example.meta["entities"]:
                types[name].add(kind)
        return types

    hard = seen("hard")
    assert hard["Washington"] == hard["Florence"] == {"PER", "LOC"}
    assert hard["Ford"] == {"PER", "ORG"} and hard["June"] == {"PER", "DATE"}
    assert not [name for level in ("easy", "normal") for name, types in seen(level).items() if len(types) > 1]


def test_the_words_around_tell_the_type() -> None:
    """A name between the same two words is of the same type."""
    types: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples(ENTITIES, "hard", 6000):
        words = parse_entities(example.references[0]).words
        for kind, start, end in parse_entities(example.references[0]).entities:
            types[" ".join((words[start - 1] if start else "", *words[start : end + 1]))][kind] += 1
    assert sum(count.total() > 5 for count in types.values()) > 200
    assert {key: count for key, count in types.items() if len(count) > 1} == {}


@by_level
def test_cheating_with_tags(level: str) -> None:
    drawn = examples(ENTITIES, level, 200)
    texts = [e.prompt.split("\n")[0].removeprefix("Text:") for e in drawn]
    assert rewards(ENTITIES, drawn, [ENTITIES.oracle(e) for e in drawn]).min() == 1
    names = re.compile(r"[A-Z]\w+(?: [A-Z]\w+)*")
    cheats = {
        "copy": texts,
        "names are persons": [names.sub(lambda m: f"[PER {m[0]}]", text) for text in texts],
        "words are persons": [" " + " ".join(f"[PER {word}]" for word in text.split()) for text in texts],
        "every type": [names.sub(lambda m: f"[PER {m[0]}] [LOC {m[0]}] [ORG {m[0]}]", text) for text in texts],
        "open brackets": [names.sub(lambda m: f"[PER {m[0]} [LOC {m[0]}]", text) for text in texts],
        "only entities": [" " + " ".join(re.findall(r"\[.*?\]", e.references[0])) for e in drawn],
    }
    scores = {name: rewards(ENTITIES, drawn, made).mean() for name, made in cheats.items()}
    assert scores.pop("names are persons") < 0.68
    assert scores.pop("words are persons") < 0.4
    assert max(scores.values()) == 0


def test_parts_of_the_reward_for_tags() -> None:
    example = Example("Text: Anna Novak left Bern .\nTagged:", ("[PER Anna Novak] left [LOC Bern] .",))
    total, parts = ENTITIES.reward().parts([answered(example, " [PER Anna Novak] left [ORG Bern] .")])
    assert {name: float(score[0]) for name, score in parts.items()} == {"boundary_f1": 1.0, "entity_f1": 0.5}
    assert total[0] == pytest.approx(0.4 * 1 + 0.6 * 0.5)
    assert reward_of(ENTITIES, example, " [PER Anna Novak] leaves [LOC Bern] .") == 0
    assert reward_of(ENTITIES, example, " [PER Anna] Novak left Bern .") == 0
    assert not ENTITIES.is_success(answered(example, " [PER Anna Novak] left [ORG Bern] ."))
    assert ENTITIES.is_success(answered(example, " [PER Anna Novak]  left [LOC Bern] ."))


# ---- describe -------------------------------------------------------------------------------------------------------


@by_level
def test_references_tell_the_table(level: str) -> None:
    drawn = examples(DESCRIBE, level, 1000)
    slots = {"easy": {2}, "normal": {3, 4}, "hard": {5, 6}}[level]
    assert {len(e.meta["table"]) for e in drawn} == slots
    for example in drawn:
        assert parse_table(example.prompt) == example.meta["table"]
        told = [answered(example, f" {reference}") for reference in example.references]
        assert len(told) == 3 and SlotCoverage()(told).min() == 1 and Faithful()(told).min() == 1
        assert DESCRIBE.reward()(told) == pytest.approx(1.0)
    assert {attribute for e in drawn for attribute, _ in e.meta["table"]} == set(VALUES)


@by_level
def test_cheating_with_tables(level: str) -> None:
    drawn = examples(DESCRIBE, level, 150)
    rng = np.random.default_rng(0)
    cheats = {
        "values": [" " + " ".join(value for _, value in e.meta["table"]) for e in drawn],
        "table": [" " + e.prompt.split("\n")[0] for e in drawn],
        "shuffled": [" " + " ".join(rng.permutation(e.references[0].split())) for e in drawn],
        "one for all": [" Blue Spice is a cheap French pub with a high rating by the riverside." for e in drawn],
        "everything": [" ".join([f" {e.references[0]}", *sum(VALUES.values(), ())]) for e in drawn],
        "references": [" " + " ".join(e.references) for e in drawn],
    }
    scores = {name: rewards(DESCRIBE, drawn, texts).mean() for name, texts in cheats.items()}
    assert {name: score for name, score in scores.items() if score > 0.73} == {}
    assert max(scores[name] for name in ("values", "table", "shuffled")) < 0.5 and scores["everything"] < 0.05


def test_parts_of_the_reward_for_tables() -> None:
    table = "name[Blue Spice], food[French], priceRange[high], familyFriendly[no]"
    example = Example(f"{table}\nText:", ("Blue Spice is an expensive French place for adults only.",))

    def parts(text: str) -> dict[str, float]:
        return {name: float(score[0]) for name, score in DESCRIBE.reward().parts([answered(example, text)])[1].items()}

    whole = parts(DESCRIBE.oracle(example))
    assert whole == pytest.approx({"faithful": 1, "slot_coverage": 1, "bleu": 1})
    assert parts(" Blue Spice is an expensive place for adults only.")["slot_coverage"] == 0.75
    assert parts(" Blue Spice is a cheap French place for adults only.")["slot_coverage"] == 0.75
    assert parts(" Blue Spice is a cheap French place for adults only.")["faithful"] == 0.5
    assert parts(" Blue Spice is a cheap Greek pub for families.")["faithful"] == 0.0625
    assert parts(" Blue Spice, a pricey French restaurant, isn't family-friendly!")["faithful"] == 1
    assert parts(" Blue Spice, a pricey French restaurant, isn't family-friendly!")["slot_coverage"] == 1
    near = Example("name[The Mill], near[Raja Indian Cuisine]\nText:", ("The Mill is near Raja Indian Cuisine.",))
    assert reward_of(DESCRIBE, near, DESCRIBE.oracle(near)) == pytest.approx(1)  # of which nothing says Indian food
    assert parts(" Blue Lion is an expensive French place for adults only.")["faithful"] == 0.5
    total = reward_of(DESCRIBE, example, " Blue Spice is a cheap French place.")
    some = parts(" Blue Spice is a cheap French place.")
    assert total == pytest.approx(some["faithful"] * (0.3 * some["slot_coverage"] + 0.7 * some["bleu"]))
    assert 0 < total < 0.5
    assert DESCRIBE.is_success(answered(example, DESCRIBE.oracle(example)))
    assert not DESCRIBE.is_success(answered(example, " Blue Spice is an expensive French place."))
    assert not DESCRIBE.is_success(answered(example, " Blue Spice expensive French adults only"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [("It is family-friendly.", "yes"), ("Good for kids", "yes"), ("It isn't family friendly", "no"), ("for adults only", "no"),
     ("a non-family-friendly pub", "no"), ("no place to take your children", "no"), ("Children are not welcome", "no"),
     ("Not only is it child friendly", "yes"), ("It is cheap, not expensive.", None), ("", None)],
)  # fmt: skip
def test_families(text: str, meant: str | None) -> None:
    assert families(plain(text)) == meant


def test_restaurants_of_others(shared_data: Path) -> None:
    """E2E's human references tell the table they were written for, and no other one."""
    file = shared_data / "e2e-restaurants.dev.jsonl.gz"
    drawn = load_prompts(str(file), DESCRIBE, "dev", "normal").examples  # type: ignore[attr-defined]
    own = [answered(e, f" {reference}") for e in drawn for reference in e.references]
    assert len(own) > 400
    assert SlotCoverage()(own).mean() > 0.88 and Faithful()(own).mean() > 0.94
    others = [answered(e, f" {o.references[0]}") for e in drawn for o in drawn if "name" in dict(parse_table(o.prompt))]
    assert SlotCoverage()(others).mean() < 0.45 and Faithful()(others).mean() < 0.6
    assert rewards(DESCRIBE, drawn, [DESCRIBE.oracle(e) for e in drawn]).mean() > 0.9
    parent = TableParent()
    assert 0 < parent.corpus_score(own[:5]) <= 1
    tables = [Completion(c.prompt, c.text, c.references, {"table": parse_table(c.prompt)}) for c in own[:5]]
    assert parent(own[:5]) == pytest.approx(parent(tables))
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        record = json.loads(next(lines))
    assert [f"{a}[{v}]" for a, v in parse_table(drawn[0].prompt)] == record["prompt"].split(", ")


def test_tables_of_others() -> None:
    meta = {"table": [["page title", "Ada Lovelace"], ["born", "10 December 1815"]]}
    example = Example("some prompt", ("Ada Lovelace was born on 10 December 1815 near the river.",), meta)
    assert reward_of(DESCRIBE, example, DESCRIBE.oracle(example)) == pytest.approx(1)  # rivers are not invented here
    bare = Example("name[Ada], born[1815]\nText:")
    assert DESCRIBE.oracle(bare) == " Ada is a place. Its born is 1815."
    assert DESCRIBE.is_success(answered(bare, " x")) is None
    with pytest.raises(TextGymError, match="has none"):
        DESCRIBE.reward()([answered(bare, " x")])
    with pytest.raises(TextGymError, match=r"`table` in meta.*no table here"):
        DESCRIBE.reward()([answered(Example("no table here", ("x",)), " x")])


# ---- concepts -------------------------------------------------------------------------------------------------------


@by_level
def test_references_use_the_words(level: str) -> None:
    drawn = examples(CONCEPTS, level, 1500)
    assert {len(e.meta["words"]) for e in drawn} == {"easy": {2}, "normal": {3}, "hard": {4, 5}}[level]
    for example in drawn:
        assert example.prompt == concepts_prompt(example.meta["words"])
        assert given_words(example.prompt, {}) == example.meta["words"]
        told = [answered(example, f" {reference}") for reference in example.references]
        assert GivenWords()(told).min() == 1 and OneSentence()(told).min() == 1
        assert all(CONCEPTS.is_success(completion) for completion in told)


def test_scenes_are_made_of_known_words() -> None:
    forms_of = {"catch": "catches", "fix": "fixes", "play": "plays", "push": "pushes", "write": "writes"}
    assert {verb: third_person(verb) for verb in forms_of} == forms_of
    verbs = [*DEEDS, *ANIMAL_DEEDS, *STATES]
    assert not [verb for verb in verbs if re.search(r"([^aeiou]y|[sz])$", verb)]  # their forms are not made right
    forms = {third_person(verb) for verb in verbs}
    things = {thing for deeds in (DEEDS, ANIMAL_DEEDS) for objects in deeds.values() for thing in objects}
    small = {"the", "a", "an", *PLACES.values(), *PLACES}
    known = forms | things | small | set(PEOPLE) | set(ANIMALS) | set(NATURES)
    rng = np.random.default_rng(0)
    for _ in range(1500):
        words = CONCEPTS.document(rng).split("Sentence: ")[1].lower().removesuffix(".").split()
        assert set(words) <= known, words
        assert sum(word in forms for word in words) >= 1
        (who, *_) = [word for word in words if word in ANIMALS or word in PEOPLE]
        deeds = ANIMAL_DEEDS if who in ANIMALS else DEEDS
        assert any(third_person(verb) in words for verb in (*deeds, *STATES)), words


@pytest.mark.parametrize(
    ("text", "coverage", "sentence"),
    [
        (" The dog chases the ball in the park.", 1, 1),
        (" Dogs chasing a ball!", 2 / 3, 1),
        (" The dog chases the dog.", 1 / 3, 1),
        (" dog ball park", 1, 0.5),
        (" Dog, ball, park.", 1, 0.5),
        (" The dog is here. The ball is in the park.", 1, 0.5),
        (" The dog chases the ball in the park", 1, 0.5),
        (" The dog chases the ball in the park" + " and the park" * 3 + ".", 1, 0.5),
        (" The hotdog sees a balloon parked.", 1 / 3, 1),
        ("", 0, 0),
        (" ...", 0, 0),
    ],
)
def test_parts_of_the_reward_for_words(text: str, coverage: float, sentence: float) -> None:
    completion = Completion("Words: dog, ball, park\nSentence:", text)
    assert GivenWords()([completion])[0] == pytest.approx(coverage)
    assert OneSentence()([completion])[0] == sentence
    assert CONCEPTS.is_success(completion) is (coverage == sentence == 1)


def test_words_of_others() -> None:
    record: dict[str, Any] = {"prompt": "ski, mountain, skier", "concepts": ["ski", "mountain", "skier"]}
    example = load_prompts([record], CONCEPTS, "train", "normal").examples[0]  # type: ignore[attr-defined]
    assert example.prompt == concepts_prompt(record["concepts"])
    assert given_words(example.prompt, example.meta) == given_words(example.prompt, {}) == record["concepts"]
    assert given_words("owl egg", {}) == ["owl", "egg"] and given_words("x", {"words": "owl, egg"}) == ["owl", "egg"]
    assert CONCEPTS.oracle(example) == " There is a ski, a mountain and a skier."
    assert CONCEPTS.is_success(answered(example, " A skier skis down the mountain."))
    assert CONCEPTS.oracle(Example("owl")) == " There is an owl."
    with pytest.raises(TextGymError, match=r"words.*'\.\.\.'"):
        CONCEPTS.reward()([Completion("...", " x")])


def cheats_with_words(drawn: Sequence[Example]) -> dict[str, list[str]]:
    rng = np.random.default_rng(0)

    def shuffled(text: str) -> str:
        words = rng.permutation(text.lower().strip(" .").split())
        return f" {' '.join(words).capitalize()}."

    return {
        "list": [" " + ", ".join(e.meta["words"]) for e in drawn],
        "list as a sentence": [f" {' '.join(e.meta['words']).capitalize()}." for e in drawn],
        "nouns": [f" The {' the '.join(e.meta['words'])}." for e in drawn],
        "there is": [f" There is a {' and a '.join(e.meta['words'])}." for e in drawn],
        "shuffled": [shuffled(e.references[0]) for e in drawn],
        "another scene": [f" {e.references[0]}" for e in (*drawn[1:], drawn[0])],
    }


@by_level
def test_fluency_of_the_bundled_model(level: str) -> None:
    """The bundled model has read such sentences: what it finds fluent is them, and no list of words."""
    drawn = examples(CONCEPTS, level, 60)
    for i in (0, 1, -1):
        assert rewards(CONCEPTS, drawn, [f" {e.references[i]}" for e in drawn]).mean() > 0.95
    scores = {name: rewards(CONCEPTS, drawn, texts).mean() for name, texts in cheats_with_words(drawn).items()}
    assert {name: score for name, score in scores.items() if score > 0.7} == {}


@pytest.mark.parametrize("fluency", [0.0, 0.3, 1.0])
def test_reward_whatever_the_fluency(fluency: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(GivenWords):
        name = "fluency"

        def __init__(self, **ends: float) -> None:
            assert ends == {"low": -4.0, "high": -1.0}

        def __call__(self, completions: Sequence[Completion]) -> np.ndarray:
            return np.full(len(completions), fluency, dtype=np.float32)

    monkeypatch.setattr(concepts, "Fluency", Fixed)
    reward = concepts._reward.__wrapped__()
    assert reward.range == (0.0, 1.0)
    completion = Completion("Words: dog, ball, park\nSentence:", " The dog chases the cat in the park")
    total, parts = reward.parts([completion])
    assert {name: round(float(score[0]), 4) for name, score in parts.items()} == {
        "coverage": 0.6667, "one_sentence": 0.5, "fluency": pytest.approx(fluency),
    }  # fmt: skip
    assert total[0] == pytest.approx(2 / 3 * 0.5 * (0.4 + 0.6 * fluency))
