"""Texts of a batch are named so that a user finds them."""

from made_samples import FRAMES

from tunesmith.recipes.feed import Feed, Place
from tunesmith.recipes.pretrain_settings import PretrainSettings
from tunesmith.recipes.whereabouts import examples_words, sequences_words
from tunesmith.text.tokens import Tokens


def make_feed(**data):
    tokens = Tokens([[list(range(200, 200 + n))] for n in (9, 4, 7)])
    return Feed(tokens, FRAMES["t5"], PretrainSettings.model_validate({"data": {"max_tokens": 32, **data}}))


def spelt(ids):
    return "  ".join(map(str, ids))


def test_sequences():
    places = [Place(0, 4, number) for number in (8, 2, 7, 0, 1, 3)] + [Place(1, 0, 2), Place(1, 0, 1)]
    assert sequences_words(places, make_feed(short_tokens=16), None) == (
        "sequences 8, 2, 7, 0, 1 and 1 more of epoch 4 of at most 16 tokens and sequences 2, 1 of epoch 0 of at most "
        "32 tokens (counted from 0)"
    )


def test_the_text_is_the_sequence_of_that_number():
    words = sequences_words([Place(1, 0, 1), Place(1, 0, 0)], make_feed(), spelt)
    assert words.endswith(f"(counted from 0), the first '{200} {201} {202} {203} {FRAMES['t5'].after[0]}'")


def test_examples():
    assert examples_words([2, 0], ["one", "two", "three\n  four"]) == (
        "examples 2, 0 of the train split (counted from 0), the first 'three four'"
    )
