"""Cleaning: each filter finds its own kind, real text passes, duplicates are found as brute force finds them."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.errors import DataError
from tunesmith.text.cleaning import CleaningSettings, clean
from tunesmith.text.corpus import CorpusSettings, Document, open_corpus
from tunesmith.text.minhash import near_duplicates, shingles_of, signature, words_of

DATA = Path(__file__).parents[2].parent / "shared" / "data"
VOCABULARY = [
    a + b for a in ("ka", "lo", "mi", "tu", "ren", "sal", "vo") for b in ("ra", "ne", "tik", "mun", "sh", "go")
]


def prose(seed, words=120):
    draw = random.Random(seed)
    return " ".join(draw.choices(VOCABULARY, k=words)) + "."


def documents(texts):
    return [Document(text, i, "a.txt", i + 1) for i, text in enumerate(texts)]


GOOD = [prose(i) for i in range(5)]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("too short", "Just a few words."),
        ("few letters", ". , ; : ! ? - ( ) " * 20 + prose(1, 10)),
        ("many digits", "karalonemira 12345 lonemiratu 6789 " * 30),
        ("many symbols", "kara { # } = | lone <b> mira tune " * 20),
        ("repeated lines", "\n".join([prose(2, 8)] * 9 + [prose(3, 8)])),
        ("overlong words", prose(4, 30) + " " + "abcdefghij" * 10),
        ("unusual word lengths", " ".join("abcdefghijklmnopqrstuvwxyz"[i % 5 : 20 + i % 5] for i in range(40))),
        ("repeated word sequences", " ".join([prose(5, 15)] * 6)),
    ],
)
def test_each_filter_finds_its_kind(reason, text):
    found = clean(documents([*GOOD, text]), CleaningSettings())
    assert found.keep.tolist() == [True] * 5 + [False]
    assert {name: dropped.count for name, dropped in found.dropped.items()} == {reason: 1}
    (example,) = found.dropped[reason].examples
    assert example.where == "a.txt line 6"
    assert text.startswith(example.excerpt.split()[0])
    assert len(example.excerpt) <= 80
    assert found.summary() == f"kept 5 of 6 documents; dropped: 1 {reason}"


def test_filters_can_be_turned_off():
    off = CleaningSettings(
        min_characters=0,
        min_letters=0,
        max_digits=1,
        max_symbols=1,
        max_repeated_lines=1,
        max_repeated_ngrams=1,
        max_word_characters=10**6,
        min_mean_word=0,
        max_mean_word=10**6,
        duplicates="keep",
    )
    texts = ["1", "#" * 50, "a\na\na", "1234 " * 40, "x" * 500, prose(1), prose(1)]
    assert clean(documents(texts), off).keep.all()


def test_no_more_than_three_examples_and_all_are_counted():
    found = clean(documents(["short"] * 7 + [prose(1)] * 6), CleaningSettings())
    assert {name: (d.count, len(d.examples)) for name, d in found.dropped.items()} == {
        "too short": (7, 3),
        "copies": (5, 3),
    }
    assert [example.like for example in found.dropped["copies"].examples] == [7, 7, 7]
    assert found.num_kept == 1


def test_what_was_found_can_be_kept_in_json():
    """Also where the text holds half of a surrogate pair, which UTF-8 cannot write."""
    found = clean(documents(["short \ud800", *["more"] * 3, *[prose(1)] * 2]), CleaningSettings())
    tree = found.tree()
    assert json.loads(json.dumps(tree, ensure_ascii=False).encode()) == tree
    assert (tree["documents"], tree["kept"]) == (6, 1)
    assert {reason: drop["count"] for reason, drop in tree["dropped"].items()} == {"too short": 4, "copies": 1}
    assert tree["dropped"]["copies"]["examples"] == [
        {"where": "a.txt line 6", "excerpt": prose(1)[:80].strip(), "like": 4}
    ]
    assert tree["dropped"]["too short"]["examples"][0]["excerpt"] == "short ?"


def test_nothing_left_is_an_error():
    with pytest.raises(DataError, match=r"^data\.cleaning: drops every document \(3 too short\)"):
        clean(documents(["a", "b", "c"]), CleaningSettings())


def test_copies_and_near_copies():
    words = prose(1, 400).split()
    near = words.copy()
    near[200] = "changed"
    half = words[:200] + prose(2, 200).split()
    texts = [prose(7, 300), " ".join(words), " ".join(words).upper() + "\n", " ".join(near), " ".join(half)]
    kept = {
        kind: clean(documents(texts), CleaningSettings(duplicates=kind)).keep.tolist()
        for kind in ("keep", "exact", "near")
    }
    assert kept == {
        "keep": [True] * 5,
        "exact": [True, True, False, True, True],
        "near": [True, True, False, False, True],
    }
    found = clean(documents(texts), CleaningSettings())
    assert found.dropped["near copies"].examples[0].like == 1


def jaccard(a, b):
    return len(a & b) / len(a | b)


def shingle_sets(texts):
    words = [words_of(text) for text in texts]
    return [{tuple(w[i : i + 5]) for i in range(max(len(w) - 4, 1))} for w in words]


def changed(draw, text, count):
    words = text.split()
    for at in draw.sample(range(len(words)), count):
        words[at] = f"new{draw.randrange(10**6)}"
    return " ".join(words)


def test_signatures_estimate_the_jaccard_similarity():
    draw = random.Random(0)
    errors = []
    for seed in range(60):
        a = prose(seed, 300)
        b = changed(draw, a, seed)
        first, second = shingle_sets([a, b])
        agree = np.mean(signature(shingles_of(words_of(a))) == signature(shingles_of(words_of(b))))
        errors.append((agree - jaccard(first, second)) * np.sqrt(128))
    assert abs(np.mean(errors)) < 0.5 * 4 / np.sqrt(60)  # the estimate has at most the deviation 0.5 / sqrt(128)
    assert np.max(np.abs(errors)) < 0.5 * 4.5


def test_near_duplicates_are_those_of_brute_force():
    draw = random.Random(1)
    texts = []
    for seed in range(150):
        base = prose(seed, 200)
        texts.append(base)
        if seed % 3 == 0:
            texts.append(changed(draw, base, draw.choice([1, 2, 30, 60])))
    draw.shuffle(texts)
    sets = shingle_sets(texts)
    wanted = {}
    for i in range(len(texts)):
        near = [j for j in range(i) if jaccard(sets[i], sets[j]) >= 0.85]
        if near:
            wanted[i] = near
    found = near_duplicates(np.stack([signature(shingles_of(words_of(t))) for t in texts]), similarity=0.75)
    pairs = dict(zip(found.documents.tolist(), found.earlier.tolist(), strict=True))
    assert len(wanted) >= 15
    assert wanted.keys() <= pairs.keys()
    assert all(jaccard(sets[i], sets[j]) > 0.6 and j < i for i, j in pairs.items())


@pytest.mark.parametrize(("similarity", "count"), [(0.3, 30), (0.5, 18), (0.65, 12), (0.8, 5), (0.95, 1)])
def test_near_copies_are_found_at_any_similarity(similarity, count):
    """Of the pairs that agree as much, nearly all share a band, and so are compared."""
    draw = random.Random(2)
    bases = [prose(seed, 300) for seed in range(80)]
    texts = bases + [changed(draw, base, count) for base in bases]
    signatures = np.stack([signature(shingles_of(words_of(text))) for text in texts])
    agree = (signatures[:80] == signatures[80:]).mean(axis=1) >= similarity
    found = near_duplicates(signatures, similarity=similarity)
    assert agree.sum() > 40
    assert len(found.documents) >= 0.95 * agree.sum()


@given(st.lists(st.text("ab ", max_size=40), min_size=1, max_size=8))
def test_equal_shingles_give_equal_signatures_and_no_input_fails(texts):
    signatures = np.stack([signature(shingles_of(words_of(text))) for text in texts])
    sets = [frozenset(s) for s in shingle_sets(texts)]
    for i in range(len(texts)):
        for j in range(i):
            assert np.array_equal(signatures[i], signatures[j]) == (sets[i] == sets[j])
    found = near_duplicates(signatures, similarity=1.0)
    first = {s: sets.index(s) for s in sets}
    assert dict(zip(found.documents.tolist(), found.earlier.tolist(), strict=True)) == {
        i: first[s] for i, s in enumerate(sets) if first[s] < i
    }


def test_scripts_without_spaces_have_words():
    assert words_of("漢字と Kana, 한국어 text_2") == ["漢", "字", "と", "kana", "한국어", "text", "2"]
    text = "这是一个关于自然语言处理的很长的句子没有空格但是有很多汉字" * 3
    assert len(set(words_of(text))) > 15


def test_another_process_finds_the_same():
    code = (
        "from tunesmith.text.minhash import *; "
        "print(signature(shingles_of(words_of('the quick brown fox jumps over a lazy dog'))).tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = signature(shingles_of(words_of("the quick brown fox jumps over a lazy dog"))).tolist()
    assert run.stdout.strip() == str(here)
    assert len(set(here)) > 100


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared corpora")
@pytest.mark.parametrize("name", ["corpus_enwiki", "corpus_de_novels", "corpus_ko_wiki"])
def test_real_text_passes(name):
    corpus = open_corpus(DATA / name / "dev.txt", CorpusSettings()).splits["train"]
    found = clean(corpus, CleaningSettings())
    assert found.num_kept >= 0.95 * len(found.keep), found.summary()


def test_a_shared_band_is_only_a_candidate():
    base = np.arange(128, dtype=np.uint32)
    rows = np.tile(base, (4, 1))
    rows[1, 8:] += 1000  # one band of 16 agrees
    rows[2, 102:] += 2000  # 102 of 128 agree: 0.797
    rows[3, 103:] += 3000  # 103 of 128 agree: 0.805
    found = near_duplicates(rows, similarity=0.8)
    assert (found.documents.tolist(), found.earlier.tolist()) == ([3], [0])
