"""Prefix language modelling: the encoder reads the beginning of a text, and the decoder writes the rest.

Papers: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv:1910.10683), section
3.2.3; UL2 (arXiv:2205.05131), section 3.1.2, whose S-denoiser it is.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, Objective, ObjectiveConfig, Phase, Piece
from tunesmith.objectives._documents import Pair, both_sides, documents, need_end, written
from tunesmith.objectives._run import family_head, lm_loss, need
from tunesmith.text.sample import Drawn, Vocabulary


class PrefixLMConfig(ObjectiveConfig):
    """Settings of prefix language modelling."""

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "prefix_lm", kind="encoder-decoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "PrefixLM":
        """The objective."""
        return PrefixLM(start=model.decoder_start, end=need_end(vocabulary, "prefix_lm"))


class PrefixLM(Objective):
    """x1 x2 </s>, and to be written: x3 x4 x5 </s>.

    Args:
        start: What the decoder reads first.
        end: What ends a target.
    """

    def __init__(self, *, start: int, end: int):
        self.start, self.end = start, end

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update."""
        return (Phase("train", {"lm": 1.0}, lambda name: True),)

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch; a text is cut at any place but its ends, and one of a single token is written whole."""
        pairs = [self._cut(one) for one in documents(drawn)]
        return both_sides(pairs, num_samples=len(drawn), device=device)

    def targets(self, batch: Batch) -> dict[str, int]:
        """Tokens that are written."""
        assert batch.rows is not None
        return {"lm": len(batch.rows)}

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sum of the cross-entropies."""
        return {"lm": lm_loss(model, batch)}

    def _cut(self, one: Drawn) -> Pair:
        ids, text = one.sample.ids, np.flatnonzero(~one.sample.special)
        if len(text) > 1:
            cut = int(text[one.stream.integers(1, len(text))])
        else:
            cut = int(text[0]) if len(text) else len(ids)
        last = int(text[-1]) + 1 if len(text) else len(ids)  # what stands behind the text closes the encoder's part
        source = np.concatenate([ids[:cut], ids[last:]])
        return Piece(source), written(np.append(ids[cut:last], self.end), start=self.start)
