"""Causal language modelling: predict each token from those before it.

Paper: Improving Language Understanding by Generative Pre-Training (GPT, 2018), equation 1.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig, Piece
from tunesmith.objectives._documents import onward
from tunesmith.objectives._lm import LMObjective
from tunesmith.objectives._packing import by_length, packed
from tunesmith.objectives._run import family_head, need
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


class CLM(LMObjective):
    """Every token but the first of each document is predicted, the one that ends the text too.

    A document that is cut into several has what begins it before its first part alone, and its end behind the last.
    """

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch; documents of one row do not see each other."""
        texts = [one.sample.ids for one in onward(drawn)]
        pieces = [Piece(ids, places=np.arange(len(ids) - 1), labels=ids[1:]) for ids in texts]
        pieces = [pieces[i] for i in by_length(pieces)]
        source, rows, labels = packed(pieces, device=device)
        return Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels)
