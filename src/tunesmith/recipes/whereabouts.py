"""Words by which a user finds the texts of a batch again: their numbers, and how the first one begins."""

from collections.abc import Callable, Sequence

from tunesmith.recipes.feed import Feed, Place

_NAMED = 5
_BEGINNING = 60
"""Numbers that are named, and characters that are shown: the words stand in one line."""


def sequences_words(places: Sequence[Place], feed: Feed, decode: Callable[[Sequence[int]], str] | None) -> str:
    """Sequences of pretraining, as in "sequences 7, 3 of epoch 0 (counted from 0), the first 'It was'".

    Args:
        places: At least one.
        feed: Gives their tokens.
        decode: Gives the text of token ids; None: no text is shown.
    """
    parts: dict[tuple[int, int], list[int]] = {}
    for place in places:
        parts.setdefault((place.stage, place.epoch), []).append(place.number)
    words = " and ".join(
        f"sequences {_numbers(numbers)} of epoch {epoch} of at most {feed.max_tokens(stage)} tokens"
        for (stage, epoch), numbers in parts.items()
    )
    text = "" if decode is None else decode(feed.draw(places[0]).sample.ids[:_BEGINNING].tolist())
    return f"{words} (counted from 0){_first(text)}"


def examples_words(numbers: Sequence[int], texts: Sequence[str]) -> str:
    """Examples of tuning, as in "examples 7, 3 of the train split (counted from 0), the first 'It was'"."""
    return f"examples {_numbers(numbers)} of the train split (counted from 0){_first(texts[numbers[0]])}"


def _numbers(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return ", ".join(str(number) for number in numbers[:_NAMED]) + more


def _first(text: str) -> str:
    shown = " ".join(text.split())
    return f", the first {shown[:_BEGINNING]!r}" if shown else ""
