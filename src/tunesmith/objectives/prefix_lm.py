"""Prefix language modelling: read the beginning of a text both ways, and write the rest of it.

An encoder-decoder's encoder reads the beginning; in a decoder alone, its tokens see each other whatever their order.

Papers: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv:1910.10683), section
3.2.3; UL2 (arXiv:2205.05131), section 3.1.2, whose S-denoiser it is.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig, Piece
from tunesmith.objectives._documents import Pair, both_sides, documents, need_end, onward, written
from tunesmith.objectives._lm import LMObjective
from tunesmith.objectives._packing import by_length, packed
from tunesmith.objectives._run import family_head, need
from tunesmith.text.sample import Drawn, Vocabulary


class PrefixLMConfig(ObjectiveConfig):
    """Settings of prefix language modelling."""

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        if model.encoder is not None:
            need(model, "prefix_lm", kind="encoder-decoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "PrefixLM | PrefixLMAlone":
        """The objective."""
        if model.encoder is None:
            return PrefixLMAlone()
        return PrefixLM(start=model.decoder_start, end=need_end(vocabulary, "prefix_lm"))


class PrefixLM(LMObjective):
    """x1 x2 </s>, and to be written: x3 x4 x5 </s>; without the end where the text is cut and goes on.

    Args:
        start: What the decoder reads first.
        end: What ends a target.
    """

    def __init__(self, *, start: int, end: int):
        self.start, self.end = start, end

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch; a text is cut at any place but its ends, and one of a single token is written whole."""
        pairs = [self._cut(one) for one in documents(drawn)]
        return both_sides(pairs, num_samples=len(drawn), device=device)

    def _cut(self, one: Drawn) -> Pair:
        ids, cut = one.sample.ids, _cut(one)
        text = np.flatnonzero(~one.sample.special)
        last = int(text[-1]) + 1 if len(text) else len(ids)  # what stands behind the text closes the encoder's part
        source = np.concatenate([ids[:cut], ids[last:]])
        ends = one.sample.special[-1] and not one.sample.at_cut[-1]  # a text that is cut goes on
        rest = np.append(ids[cut:last], self.end) if ends else ids[cut:last]
        return Piece(source), written(rest, start=self.start)


class PrefixLMAlone(LMObjective):
    """The same for a decoder alone: what ends the text is written too."""

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch."""
        pieces, cuts = [], []
        for one in onward(drawn):
            ids, cut = one.sample.ids, max(1, _cut(one))
            pieces.append(Piece(ids, places=np.arange(cut - 1, len(ids) - 1), labels=ids[cut:]))
            cuts.append(cut)
        order = by_length(pieces)
        source, rows, labels = packed([pieces[i] for i in order], device=device)
        places = torch.arange(max(source.layout.lengths), device=device)
        behind = places >= torch.tensor([cuts[i] for i in order], device=device)[:, None]
        hidden = behind[:, None] & (places > places[:, None])
        return Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels, hidden=hidden)


def _cut(one: Drawn) -> int:
    """The first token that is written; each but the first of the text is as likely."""
    text = np.flatnonzero(~one.sample.special)
    if len(text) > 1:
        return int(text[one.stream.integers(1, len(text))])
    return int(text[0]) if len(text) else len(one.sample.ids)
