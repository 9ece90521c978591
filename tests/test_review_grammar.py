"""The film reviews: correct English, a rich vocabulary, balanced opinions, and cuts that praise can follow."""

import re
from collections import Counter

import numpy as np
import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from textgym.tasks._review_grammar import KINDS, POLARITIES, Review, cut_prompt, praise, write_review

STOP_WORDS = set(
    re.findall(
        r"\w+",
        """a about above after again all almost also although among an and another any anyone are as at away be because
        been before both but by can cannot could did do does down each else even ever every everyone few for
        from had half has have her him his how i if in into is it its just less like many me more most much
        my near neither never nine no nor not of off on one only or other others our out over own per same
        seven she six so some something such ten than that the their them then there these they this those
        though three through to together too towards twelve two under until up us very was we were what when
        where which while who whom why will with within without would yet you your four five eight""",
    )
)


@pytest.fixture(scope="module")
def reviews() -> list[Review]:
    rng = np.random.default_rng(0)
    return [write_review(rng) for _ in range(3000)]


@pytest.fixture(scope="module")
def analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def find(pattern: str, reviews: list[Review]) -> list[str]:
    return [review.text for review in reviews if re.search(pattern, review.text)]


def test_shape(reviews: list[Review]) -> None:
    for review in reviews:
        assert 3 <= len(re.findall(r"[.!?](?= |$)", review.text)) <= 7  # a verdict may consist of two
        assert 25 <= len(review.text.split()) <= 70
        assert review.polarity in POLARITIES
    assert min(Counter(review.polarity for review in reviews).values()) > 200


def test_surface(reviews: list[Review]) -> None:
    assert not find(r"[{}|@*^_+]|  | [.,;:!?]|[.,;:!?]{2}|[;,:]$|\s$|^\s", reviews)
    assert not find(r"(^|[.!?] )[a-z]", reviews)  # a sentence begins with a capital letter or a digit
    assert not find(r"[^.!?]$", reviews)
    assert not find(r"(?i)\b(\w+) \1\b", reviews)  # a word twice in a row
    assert not find(r"[^A-Za-z0-9 .,;:!?'-]", reviews)


def test_articles(reviews: list[Review]) -> None:
    spoken_consonant = r"(?!(?:eu|use|one\b|once|uni(?:que|fied|form|on|t|vers)))"
    assert not find(rf"(?i)\ba {spoken_consonant}[aeiou]", reviews)
    assert not find(r"(?i)\ban (?!hour|honest|honor|heir)[^aeiou]", reviews)
    assert not find(r"\b(a|an|the) (a|an|the|my|its)\b", reviews)
    assert find(r"\ban? \w", reviews)


def test_agreement(reviews: list[Review]) -> None:
    plural = "performances|costumes|songs|jokes|characters|subplots|visuals|stunts|locations|landscapes|critics"
    assert not find(rf"The ({plural}) (is|was|has|drags|falls|works)\b", reviews)
    singular = "script|plot|music|ending|soundtrack|acting|premise|dialogue|lead actor|film|movie"
    assert not find(rf"(^|[.!?] )The ({singular}) (are|were|have|drag|fall|work)\b", reviews)
    assert not find(r"\b(claped|hurted|payed|builded|feeled|droped|runned|stoped)\b|[^aeiou]yed\b", reviews)
    assert not find(r"\b(I|It|This) (were|are)\b|\b[Ww]e was\b", reviews)


def test_vocabulary(reviews: list[Review], analyzer: SentimentIntensityAnalyzer) -> None:
    counts = Counter(word for review in reviews for word in re.findall(r"[a-z]+(?:-[a-z]+)*", review.text))
    content = {word for word in counts if word not in STOP_WORDS and len(word) > 2}
    assert len(content) >= 1000
    assert sum(analyzer.lexicon.get(word, 0) > 0 for word in content) >= 150
    assert sum(analyzer.lexicon.get(word, 0) < 0 for word in content) >= 150
    assert max(counts[word] for word in content - {"film", "movie", "picture"}) < len(reviews) / 3  # no pet words
    assert len({review.text for review in reviews}) == len(reviews)


def test_opinions_are_balanced_and_turn(reviews: list[Review], analyzer: SentimentIntensityAnalyzer) -> None:
    rng = np.random.default_rng(1)
    scores, before, polarities = [], [], np.array([review.polarity for review in reviews])
    for review in reviews:
        prompt, rest, _ = cut_prompt(review, rng)
        scores.append(analyzer.polarity_scores(" ".join(rest.split()[:26]))["compound"])
        before.append(analyzer.polarity_scores(prompt)["compound"])
    after = np.array(scores)
    assert -0.05 <= after.mean() <= 0.12
    assert after.std() >= 0.5
    assert 0.08 <= (after >= 0.8).mean() <= 0.16
    assert 0.08 <= (after <= -0.8).mean() <= 0.16
    assert after[polarities == "positive"].mean() > 0.3
    assert after[polarities == "negative"].mean() < -0.15
    # After a good beginning, and after a bad one, the review may well go either way.
    for beginning in (np.array(before) > 0.3, np.array(before) < -0.3):
        assert (after[beginning] > 0.3).mean() > 0.15
        assert (after[beginning] < -0.3).mean() > 0.15


def test_cuts(reviews: list[Review]) -> None:
    usable = []
    for review in reviews:
        for cut in review.cuts:
            prompt, rest = review.text[: cut.offset], review.text[cut.offset :]
            assert prompt[-1] != " " and rest[0] == " "
            assert len(prompt.split()) == cut.words
            assert cut.kind in KINDS.values()
            assert (cut.kind == "sentence") == (prompt[-1] in ".!?")
            if cut.kind == "article":
                assert prompt.lower().endswith(" a")
        usable.append(sum(4 <= cut.words <= 14 for cut in review.cuts))
    assert min(usable) >= 1
    assert np.mean(usable) >= 2


def test_prompts(reviews: list[Review]) -> None:
    rng = np.random.default_rng(2)
    kinds: Counter[str] = Counter()
    for review in reviews:
        prompt, rest, kind = cut_prompt(review, rng)
        assert prompt + rest == review.text
        assert rest.startswith(" ")
        assert 4 <= len(prompt.split()) <= 14
        kinds[kind] += 1
        assert len(cut_prompt(review, rng, 5, 25)[0].split()) >= 5
    assert set(kinds) == set(KINDS.values())
    assert kinds["sentence"] < 0.65 * len(reviews)
    prompts = {cut_prompt(write_review(rng), rng)[0] for _ in range(5000)}
    assert len(prompts) > 4400  # and more than 15,000 of 20,000


def test_praise(analyzer: SentimentIntensityAnalyzer) -> None:
    rng = np.random.default_rng(3)
    scores = []
    for kind in KINDS.values():
        texts = [praise(kind, rng) for _ in range(250)]
        assert len(set(texts)) > 240
        for text in texts:
            words = re.findall(r"[a-z]+", text.lower())
            assert 12 <= len(text.split()) <= 22
            assert max(Counter(words).values()) <= 2
            assert max(Counter(zip(words, words[1:], words[2:], strict=False)).values()) == 1
            assert re.match(r" [A-Z]" if kind == "sentence" else r" ([a-z]|I )", text)
            assert re.search(r"[a-z][.!]$", text) and not re.search(r"[{}|@*^]|  | [.,]", text)
            assert kind != "article" or text[1] not in "aeiou"
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)
            scores.append(analyzer.polarity_scores(text)["compound"])
    assert min(scores) >= 0.95
    assert np.mean(scores) >= 0.96


def test_deterministic() -> None:
    def sample(seed: int) -> list[object]:
        rng = np.random.default_rng(seed)
        texts: list[object] = []
        for _ in range(20):
            review = write_review(rng)
            *_, kind = cut = cut_prompt(review, rng)
            texts += [review, cut, praise(kind, rng)]
        return texts

    np.random.seed(0)
    first = sample(7)
    np.random.seed(1)
    assert sample(7) == first
    assert sample(8) != first


@pytest.mark.parametrize("polarity", POLARITIES)
def test_polarity_as_asked(polarity: str) -> None:
    assert write_review(np.random.default_rng(0), polarity).polarity == polarity


def test_errors() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"polarity must be one of .*'glad'"):
        write_review(rng, "glad")
    with pytest.raises(ValueError, match=r"kind must be one of .*'verb'"):
        praise("verb", rng)
