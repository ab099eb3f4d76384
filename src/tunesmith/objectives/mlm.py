"""Masked language modelling: predict tokens that are hidden in the text.

The loss is -sum log p(x_i | x with masks) over the chosen places i: 15 % of the tokens, of which 80 % read as [MASK],
10 % as a random token and 10 % as they are.

Papers: BERT (arXiv:1810.04805), section 3.1, task 1; RoBERTa (arXiv:1907.11692), section 4.1, for masks that are new in
every epoch (``masking=static`` is BERT's: 10 frozen copies); ALBERT (arXiv:1909.11942), equation 4, for n-grams;
SpanBERT (arXiv:1907.10529), section 3.1, for spans.
Differs: see `Masking` in ``_masking.py``.
"""

from collections.abc import Sequence

import torch

from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig
from tunesmith.objectives._lm import LMObjective
from tunesmith.objectives._masking import Masking, MaskingConfig, documents_of
from tunesmith.objectives._packing import by_length, packed
from tunesmith.objectives._run import family_head, need
from tunesmith.text.sample import Drawn, Vocabulary


class MLMConfig(MaskingConfig, ObjectiveConfig):
    """Settings of masked language modelling."""

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "mlm", kind="encoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "MLM":
        """The objective."""
        return MLM(Masking(self, vocabulary, objective="mlm"))

    @property
    def duplicates(self) -> int | None:
        """Frozen copies, where masking is static."""
        return self.frozen


class MLM(LMObjective):
    """Some tokens of each document are hidden and predicted.

    Args:
        masking: Chooses and hides them.
    """

    def __init__(self, masking: Masking):
        self.masking = masking

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch; documents of one row do not see each other."""
        pieces = [piece for one in drawn for piece in documents_of(one.sample, self.masking(one))]
        pieces = [pieces[i] for i in by_length(pieces)]
        source, rows, labels = packed(pieces, device=device)
        return Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels)
