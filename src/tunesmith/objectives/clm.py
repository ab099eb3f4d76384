"""Causal language modelling: predict each token from those before it.

Paper: Improving Language Understanding by Generative Pre-Training (GPT, 2018), equation 1.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, Objective, ObjectiveConfig, Phase, Piece, by_length, packed
from tunesmith.objectives._run import family_head, lm_loss, need
from tunesmith.text.sample import Drawn, Vocabulary


class CLMConfig(ObjectiveConfig):
    """Settings of causal language modelling."""

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "clm", kind="decoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "CLM":
        """The objective."""
        return CLM()


class CLM(Objective):
    """Every token but the first of each document is predicted, the one that ends the text too."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update."""
        return (Phase("train", {"lm": 1.0}, lambda name: True),)

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch; documents of one row do not see each other."""
        pieces = []
        for sample in (one.sample for one in drawn):
            ends = np.cumsum(sample.lengths)
            for ids in np.split(sample.ids, ends[:-1]):
                pieces.append(Piece(ids, places=np.arange(len(ids) - 1), labels=ids[1:]))
        pieces = [pieces[i] for i in by_length(pieces)]
        source, rows, labels = packed(pieces, device=device)
        return Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels)

    def targets(self, batch: Batch) -> dict[str, int]:
        """Predicted tokens."""
        assert batch.rows is not None
        return {"lm": len(batch.rows)}

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sum of the cross-entropies."""
        return {"lm": lm_loss(model, batch)}
