"""Span corruption: spans of the text become one sentinel each, and the decoder writes what stood there (T5).

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv:1910.10683), sections
3.1.4 and 3.3.4.
Differs: as in the released code, no sentinel closes the target, though the paper's figure 2 shows one (``closing``).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pydantic
import torch

from tunesmith.base.errors import CheckpointError, SettingError
from tunesmith.base.shapes import Bool, Int
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig, Piece
from tunesmith.objectives._documents import Pair, both_sides, documents, need_end, written
from tunesmith.objectives._lm import LMObjective
from tunesmith.objectives._run import family_head, need
from tunesmith.text.sample import Drawn, Vocabulary


class SpanCorruptionConfig(ObjectiveConfig):
    """Settings of span corruption."""

    density: float = pydantic.Field(default=0.15, gt=0, lt=1, description="Share of the tokens that is taken out.")
    mean_span: float = pydantic.Field(default=3.0, ge=1, le=10_000, description="Mean length of a span, in tokens.")
    closing: Literal["none", "sentinel"] = pydantic.Field(
        default="none", description="What stands behind the last span, before the end: the code's or the figure's form."
    )

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "span_corruption", kind="encoder-decoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "SpanCorruption":
        """The objective."""
        if not vocabulary.sentinels:
            raise CheckpointError(
                "tokenizer: has no sentinels <extra_id_0>, <extra_id_1>, ..., which objective span_corruption needs: "
                "take another tokenizer, or leave tokenizer unset to train one"
            )
        noise, spans = self.counts(self.raw_tokens(max_tokens))
        # the border between two texts may cut a span in two
        needed = spans + 1 + (self.closing == "sentinel")
        if needed > len(vocabulary.sentinels):
            raise SettingError(
                f"data.max_tokens: {max_tokens} tokens need up to {needed} sentinels, but the tokenizer has "
                f"{len(vocabulary.sentinels)}: lower it, or raise objective.mean_span"
            )
        assert model.decoder is not None
        positions, longest = model.decoder.config.max_positions, noise + needed + 1
        if longest > positions:
            raise SettingError(
                f"data.max_tokens: {max_tokens} tokens can have a target of {longest}, but the decoder has {positions} "
                "positions: lower it or objective.density, or raise model.max_positions"
            )
        return SpanCorruption(
            self,
            sentinels=np.array(vocabulary.sentinels[: positions - noise - 1]),
            start=model.decoder_start,
            end=need_end(vocabulary, "span_corruption"),
        )

    def raw_tokens(self, max_tokens: int) -> int:
        """Tokens of a text, and the one that closes it, such that what the encoder reads of both fits."""
        found = max(1, max_tokens - 1)
        while self._read(found + 1) <= max_tokens:
            found += 1
        return found + 1

    def counts(self, num_tokens: int) -> tuple[int, int]:
        """How many tokens of a text are taken out, and in how many spans; none of a text of one token."""
        if num_tokens < 2:
            return 0, 0
        noise = min(max(round(num_tokens * self.density), 1), num_tokens - 1)
        return noise, min(max(round(noise / self.mean_span), 1), noise, num_tokens - noise)

    def _read(self, num_tokens: int) -> int:
        """Tokens that the encoder reads: what is left, a sentinel for each span, and the closing token."""
        noise, spans = self.counts(num_tokens)
        return num_tokens - noise + spans + 1


class SpanCorruption(LMObjective):
    """x1 <0> x4 x5 <1> </s>, and to be written: <0> x2 x3 <1> x6 </s>.

    Args:
        config: The settings.
        sentinels: In the order of use; of a text that needs more, because many borders cut spans in two, the last spans
            stay as they are.
        start: What the decoder reads first.
        end: What ends a target.
    """

    def __init__(self, config: SpanCorruptionConfig, *, sentinels: Int[np.ndarray, "S"], start: int, end: int):
        self.config, self.sentinels, self.start, self.end = config, sentinels, start, end

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch."""
        pairs = [self._corrupt(one) for one in documents(drawn)]
        return both_sides(pairs, num_samples=len(drawn), device=device)

    def _corrupt(self, one: Drawn) -> Pair:
        ids, special = one.sample.ids, one.sample.special
        text = np.flatnonzero(~special)
        noise = np.zeros(len(ids), dtype=bool)
        noise[text] = self._spans(len(text), one.stream)
        begins = noise.copy()
        begins[1:] &= ~noise[:-1]
        places = np.flatnonzero(begins)
        most = len(self.sentinels) - (self.config.closing == "sentinel")
        if len(places) > most:
            noise[places[most] :] = False
            begins &= noise
            places = places[:most]
        sentinels = self.sentinels[: len(places)]
        source = ids.copy()
        source[places] = sentinels
        removed = ids[noise]
        before = np.cumsum(noise)[places] - 1  # tokens of the spans before each span
        closing = self.sentinels[len(places) : len(places) + (self.config.closing == "sentinel")]
        labels = np.concatenate([np.insert(removed, before, sentinels), closing, [self.end]])
        return Piece(source[~noise | begins]), written(labels, start=self.start)

    def _spans(self, num_tokens: int, stream: np.random.Generator) -> Bool[np.ndarray, "T"]:
        """Which tokens are taken out: kept and taken parts alternate, each cut uniformly; a kept one is first."""
        noise, spans = self.config.counts(num_tokens)
        if not spans:
            return np.zeros(num_tokens, dtype=bool)
        parts = np.stack([_cut(num_tokens - noise, spans, stream), _cut(noise, spans, stream)], axis=1)
        return np.repeat(np.tile([False, True], spans), parts.ravel())


def _cut(num_tokens: int, parts: int, stream: np.random.Generator) -> Int[np.ndarray, "S"]:
    """Lengths of parts, each at least 1: all ways of cutting are equally likely."""
    cuts = np.sort(stream.choice(num_tokens - 1, parts - 1, replace=False, shuffle=False)) + 1
    return np.diff(cuts, prepend=0, append=num_tokens)
