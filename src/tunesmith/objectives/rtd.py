"""Replaced token detection (ELECTRA): a small generator fills masks in, the model says of every token whether it is so.

L = L_MLM(generator) + weight * L_RTD(model); nothing flows back through the drawn tokens.

Paper: ELECTRA (arXiv:2003.10555), sections 2 and 3.2, appendix A (weight 50, 15 % masked, of those 85 % [MASK]).
"""

from typing import Annotated, Literal

import pydantic

from tunesmith.base.shapes import Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig, Phase
from tunesmith.objectives._detection import Detection, share_embeddings, small_model
from tunesmith.objectives._masking import Masking, MaskingConfig
from tunesmith.objectives._run import family_head, need
from tunesmith.objectives.mlm import MLM
from tunesmith.text.sample import Vocabulary

Share = Annotated[float, pydantic.Field(gt=0, le=1)]


class RTDConfig(ObjectiveConfig):
    """Settings of ELECTRA's objective.

    Differs: masked positions are drawn without replacement; Google's code draws with, and so masks a little less.
    """

    mlm: MaskingConfig = pydantic.Field(
        default=MaskingConfig(mask=0.85, random=0.0, keep=0.15), description="What the generator is asked."
    )
    weight: float = pydantic.Field(default=50.0, gt=0, description="Weight of the detection (lambda in the paper).")
    depth: Share = pydantic.Field(default=1.0, description="Layers of the generator, as a share of the model's.")
    width: Share = pydantic.Field(default=0.25, description="Width of the generator, as a share of the model's.")
    sharing: Literal["embeddings", "none"] = pydantic.Field(
        default="embeddings", description="Whether both share token, position and segment tables and their norm."
    )

    def head(self, model: Model) -> HeadConfig | None:
        """The family's head of replaced token detection."""
        need(model, "rtd", kind="encoder")
        return family_head(model, "rtd")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "RTD":
        """The objective, with a fresh generator."""
        generator = small_model(model, depth=self.depth, width=self.width, seed=seed)
        if self.sharing == "embeddings":
            share_embeddings(model, generator)
        mlm = MLM(Masking(self.mlm, vocabulary, objective="rtd"))
        return RTD(generator, mlm, weight=self.weight)

    @property
    def duplicates(self) -> int | None:
        """As the masks are."""
        return self.mlm.frozen


class RTD(Detection):
    """Both networks in one update."""

    def __init__(self, generator: Model, mlm: MLM, *, weight: float):
        super().__init__(generator, mlm)
        self.weight = weight

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update."""
        return (Phase("train", {"lm": 1.0, "rtd": self.weight}, lambda name: True),)

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sums of both."""
        return {"lm": self.generate(model, batch), "rtd": self.detect(model, batch)}
