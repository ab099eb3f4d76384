"""Masked language modelling and sentence-order prediction: are the two texts in order?

The loss is the mean over hidden tokens plus the mean over pairs of -log p(label | first token).

Paper: ALBERT (arXiv:1909.11942), section 3.1.
Differs: as mlm; label 1 is "swapped", as in transformers. The paper masks n-grams: set ``mlm.unit=ngram``. What its
released code does with single sentences we do not do, see input segment_pair.
"""

import pydantic

from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import ObjectiveConfig
from tunesmith.objectives._masking import Masking, MaskingConfig
from tunesmith.objectives._pair import PairObjective, pair_head
from tunesmith.text.sample import Vocabulary


class SOPConfig(ObjectiveConfig):
    """Settings of ALBERT's objective."""

    mlm: MaskingConfig = pydantic.Field(default=MaskingConfig(), description="Masks, as for objective mlm.")

    def head(self, model: Model) -> HeadConfig | None:
        """The family's pretraining head."""
        return pair_head(model, "sop")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> PairObjective:
        """The objective."""
        masking = Masking(self.mlm, vocabulary, objective="sop")
        return PairObjective(masking, name="sop", negatives="swapped")

    @property
    def duplicates(self) -> int | None:
        """Frozen copies, where masking is static."""
        return self.mlm.frozen
