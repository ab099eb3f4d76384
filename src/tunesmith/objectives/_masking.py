"""Which tokens a masked language model predicts, and what it reads in their place.

Papers: BERT (arXiv:1810.04805), section 3.1, task 1 and appendix A.1; RoBERTa (arXiv:1907.11692), section 4.1; ALBERT
(arXiv:1909.11942), equation 4; SpanBERT (arXiv:1907.10529), section 3.1.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydantic

from tunesmith.base.config import Config
from tunesmith.base.shapes import Int
from tunesmith.objectives import Piece
from tunesmith.objectives._units import choose_units, run_begins, words_of
from tunesmith.text.sample import Drawn, Sample, Vocabulary

Unit = Literal["token", "word", "ngram", "span"]
Count = Literal["rounded", "drawn", "bernoulli"]


class MaskingConfig(Config):
    """Settings of masks."""

    rate: float = pydantic.Field(default=0.15, gt=0, lt=1, description="Share of tokens that are predicted.")
    mask: float = pydantic.Field(default=0.8, ge=0, le=1, description="Share of them that read as [MASK].")
    random: float = pydantic.Field(default=0.1, ge=0, le=1, description="Share of them that read as a random token.")
    keep: float = pydantic.Field(default=0.1, ge=0, le=1, description="Share of them that read as they are.")
    unit: Unit = pydantic.Field(
        default="token",
        description="What is chosen together: token; word: whole words; ngram: up to 3 words (ALBERT); span: up to 10 "
        "words, all masked, all random or all kept (SpanBERT).",
    )
    count: Count = pydantic.Field(
        default="rounded",
        description="Tokens chosen of n: rounded: max(1, round(rate n)); drawn: floor(rate n + U(0, 1)); bernoulli: as "
        "many as n coins give.",
    )
    masking: Literal["dynamic", "static"] = pydantic.Field(
        default="dynamic", description="dynamic: new masks in every epoch; static: epochs go through frozen copies."
    )
    copies: int = pydantic.Field(default=10, ge=1, description="Frozen copies of the data, where masking is static.")

    @pydantic.model_validator(mode="after")
    def _shares_add_up(self) -> "MaskingConfig":
        total = self.mask + self.random + self.keep
        if abs(total - 1) > 1e-6:
            raise ValueError(f"mask, random and keep must add up to 1, not to {total:g}")
        return self

    @property
    def frozen(self) -> int | None:
        """Frozen copies; None where each epoch is new."""
        return self.copies if self.masking == "static" else None


@dataclass(frozen=True)
class Masked:
    """A sample with masks.

    Attributes:
        ids: What the model reads, (T,).
        places: Places that it predicts, in order, (P,).
        labels: What stood there, (P,).
    """

    ids: Int[np.ndarray, "T"]
    places: Int[np.ndarray, "P"]
    labels: Int[np.ndarray, "P"]


class Masking:
    """Chooses places and covers them.

    Differs: special tokens, [UNK] among them, are never chosen nor drawn as replacements, and n counts ordinary tokens
    only: BERT counts all and draws from the whole vocabulary, fairseq masks special ones too. There is no limit of 20
    per sequence. Words are taken while they fit into the count (BERT and ALBERT skip those that do not, so do we;
    SpanBERT cuts the last word), but at least one is always taken, so that short texts with long words are predicted.

    Args:
        config: Settings.
        vocabulary: What the tokenizer knows.
        objective: Name of the objective, for messages.

    Raises:
        CheckpointError: The tokenizer has no mask token.
    """

    def __init__(self, config: MaskingConfig, vocabulary: Vocabulary, *, objective: str):
        self.config = config
        self.vocabulary = vocabulary
        self.mask = vocabulary.need_mask(objective)
        self._ordinary = vocabulary.ordinary()

    def choose(self, sample: Sample, stream: np.random.Generator) -> Int[np.ndarray, "P"]:
        """Places to predict, in order."""
        free = np.flatnonzero(~(sample.special | self.vocabulary.special[sample.ids]))
        count = self._count(len(free), stream)
        if not count:
            return free[:0]
        if self.config.unit == "token":
            return np.sort(stream.choice(free, count, replace=False, shuffle=False))
        words = words_of(sample, free, begins=self.vocabulary.begins_word)
        return choose_units(words, count, kind=self.config.unit, stream=stream)

    def cover(self, ids: Int[np.ndarray, "T"], places: Int[np.ndarray, "P"], stream: np.random.Generator) -> Masked:
        """Put [MASK], a random token, or nothing in the places."""
        config = self.config
        if config.unit == "span":  # one decision for each run of neighbours
            run = np.cumsum(run_begins(places)) - 1
            coin = stream.random(len(places))[run]
        else:
            coin = stream.random(len(places))
        random = (coin >= config.mask) & (coin < config.mask + config.random)
        covered = ids.copy()
        covered[places[coin < config.mask]] = self.mask
        covered[places[random]] = self._ordinary[stream.integers(len(self._ordinary), size=int(random.sum()))]
        return Masked(covered, places, ids[places])

    def __call__(self, drawn: Drawn) -> Masked:
        """Choose and cover; all that is drawn comes from the sample's own stream."""
        return self.cover(drawn.sample.ids, self.choose(drawn.sample, drawn.stream), drawn.stream)

    def _count(self, size: int, stream: np.random.Generator) -> int:
        rate = self.config.rate
        if not size:
            return 0
        if self.config.count == "rounded":
            return max(1, round(rate * size))
        if self.config.count == "drawn":
            return int(rate * size + stream.random())
        return int(stream.binomial(size, rate))


def documents_of(sample: Sample, masked: Masked) -> list[Piece]:
    """The documents of a sample, each with its places."""
    if len(sample.lengths) == 1:
        return [Piece(masked.ids, segments=sample.segments, places=masked.places, labels=masked.labels)]
    ends = np.cumsum(sample.lengths)
    cuts = np.searchsorted(masked.places, ends)
    found, start, first = [], 0, 0
    for end, last in zip(ends.tolist(), cuts.tolist(), strict=True):
        found.append(
            Piece(
                masked.ids[start:end],
                segments=sample.segments[start:end],
                places=masked.places[first:last] - start,
                labels=masked.labels[first:last],
            )
        )
        start, first = end, last
    return found
