"""Masked language modelling and next-sentence prediction: does the second text follow the first?

The loss is the mean over hidden tokens plus the mean over pairs of -log p(label | first token).

Paper: BERT (arXiv:1810.04805), section 3.1, tasks 1 and 2.
Differs: as mlm; label 0 is "follows", as in the paper's code and in transformers.
"""

import pydantic

from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import ObjectiveConfig
from tunesmith.objectives._masking import Masking, MaskingConfig
from tunesmith.objectives._pair import PairObjective, pair_head
from tunesmith.text.sample import Vocabulary


class NSPConfig(ObjectiveConfig):
    """Settings of BERT's objective."""

    mlm: MaskingConfig = pydantic.Field(default=MaskingConfig(), description="Masks, as for objective mlm.")

    def head(self, model: Model) -> HeadConfig | None:
        """The family's pretraining head."""
        return pair_head(model, "nsp")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> PairObjective:
        """The objective."""
        masking = Masking(self.mlm, vocabulary, objective="nsp")
        return PairObjective(masking, name="nsp", negatives="random")

    @property
    def duplicates(self) -> int | None:
        """Frozen copies, where masking is static."""
        return self.mlm.frozen
