"""Gradient-disentangled embedding sharing (DeBERTaV3): the model reads the generator's tables, but cannot pull at them.

E_model = stopgrad(E_generator) + E_delta, where E_delta begins at zero and is trained by the detection alone. A step
first updates the generator, then the model on what the generator put in, each with an optimiser of its own.

Paper: DeBERTaV3 (arXiv:2111.09543), sections 3.1 to 3.3.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import pydantic
import torch

from tunesmith.base.shapes import Float, Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig, Phase
from tunesmith.objectives._detection import Detection, small_model
from tunesmith.objectives._masking import Masking, MaskingConfig
from tunesmith.objectives._run import family_head, need
from tunesmith.objectives.mlm import MLM
from tunesmith.surgery.replace import replace
from tunesmith.text.sample import Vocabulary

Share = Annotated[float, pydantic.Field(gt=0, le=1)]


class GDESConfig(ObjectiveConfig):
    """Settings of DeBERTaV3's objective.

    Differs: the paper's weight of a coupled loss is 50, the released script's 10.
    """

    mlm: MaskingConfig = pydantic.Field(
        default=MaskingConfig(mask=1.0, random=0.0, keep=0.0), description="What the generator is asked."
    )
    training: Literal["decoupled", "coupled"] = pydantic.Field(
        default="decoupled", description="Two updates a step with an optimiser each, as released, or one of the sum."
    )
    weight: float = pydantic.Field(default=50.0, gt=0, description="Weight of the detection in a coupled loss.")
    depth: Share = pydantic.Field(default=0.5, description="Layers of the generator, as a share of the model's.")
    width: Share = pydantic.Field(default=1.0, description="Width of the generator, as a share of the model's.")

    def head(self, model: Model) -> HeadConfig | None:
        """The family's head of replaced token detection."""
        need(model, "gdes", kind="encoder")
        return family_head(model, "rtd")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "GDES":
        """The objective, with a fresh generator; the model's tables become differences until `finish`."""
        generator = small_model(model, depth=self.depth, width=self.width, seed=seed)
        mlm = MLM(Masking(self.mlm, vocabulary, objective="gdes"))
        return GDES(model, generator, mlm, weight=self.weight if self.training == "coupled" else None)

    @property
    def duplicates(self) -> int | None:
        """As the masks are."""
        return self.mlm.frozen


class Difference(torch.nn.Module):
    """A table that is another one, out of reach of gradients, plus a difference of its own."""

    def __init__(self, base: torch.nn.Embedding):
        super().__init__()
        self._base = [base]  # a list: the other network's table is not a parameter of this module
        self.delta = torch.nn.Parameter(torch.zeros_like(base.weight))

    @property
    def weight(self) -> Float[Tensor, "V E"]:
        """The table."""
        return self._base[0].weight.detach() + self.delta

    @property
    def embedding_dim(self) -> int:
        """Width of the table."""
        return self._base[0].embedding_dim

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self._base[0].num_embeddings


class GDES(Detection):
    """Generator and model with tables that share values, not gradients.

    Args:
        model: The model; its tables are replaced by differences to the generator's.
        generator: Puts tokens in.
        mlm: Masks.
        weight: Weight of the detection in one update of the sum; None for two updates.
    """

    def __init__(self, model: Model, generator: Model, mlm: MLM, *, weight: float | None):
        super().__init__(generator, mlm)
        self.weight = weight
        assert generator.encoder is not None
        self.tables = {}
        for site, table in _tables(model).items():
            base = generator.get_submodule(site)
            if isinstance(base, torch.nn.Embedding) and base.weight.shape == table.weight.shape:
                with torch.no_grad():
                    base.weight.copy_(table.weight)  # both begin as the model does
                self.tables[site] = replace(model, site, Difference(base).to(table.weight.device))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The generator's update and then the model's; or one."""
        if self.weight is not None:
            return (Phase("train", {"lm": 1.0, "rtd": self.weight}, lambda name: True),)
        return (
            Phase("generator", {"lm": 1.0}, lambda name: name.startswith("networks.")),
            Phase("model", {"rtd": 1.0}, lambda name: name.startswith("model.")),
        )

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sum of the phase's losses."""
        if phase == "generator":
            return {"lm": self.generate(model, batch)}
        if phase == "model":
            return {"rtd": self.detect(model, batch)}
        return {"lm": self.generate(model, batch), "rtd": self.detect(model, batch)}

    def take(self, model: Model, name: str, learnt: Model) -> None:
        """The generator's own tables come back, and the differences are what the model's then differ by."""
        modules = [model.get_submodule(site) for site in self.tables]
        differences = [module for module in modules if isinstance(module, Difference)]
        wholes = [difference.weight.detach() for difference in differences]
        super().take(model, name, learnt)
        with torch.no_grad():
            for difference, whole in zip(differences, wholes, strict=True):
                difference.delta.add_(whole - difference.weight)

    def finish(self, model: Model) -> None:
        """Write the sums into plain tables."""
        for site, table in self.tables.items():
            difference = model.get_submodule(site)
            assert isinstance(difference, Difference)
            assert isinstance(table, torch.nn.Embedding)
            with torch.no_grad():
                table.weight.data = difference.weight.detach().clone()
            replace(model, site, table)
        self.tables = {}


def _tables(model: Model) -> Mapping[str, torch.nn.Embedding]:
    """The tables of the model's embeddings, by site."""
    prefix = "encoder.embeddings."
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(prefix) and isinstance(module, torch.nn.Embedding)
    }
