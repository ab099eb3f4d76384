"""Linear probe: a linear head on frozen features, solved for a whole path of L2 strengths and picked by the dev split.

The features are computed once and cached on disk by the content of weights, tokenizer and data.

Paper: LP-FT (arXiv:2202.10054), section 4.1.
"""

from typing import Annotated, Literal

import numpy as np
import pydantic
import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Float, Tensor
from tunesmith.features.cache import cached, content_key, default_folder
from tunesmith.features.extract import Reading, extract
from tunesmith.features.path import best_point, path, strengths
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.text.batching import Examples
from tunesmith.tuning import Attached, Data, Defaults, MethodConfig, Solution


class LinearProbeConfig(MethodConfig):
    """Settings of the linear probe."""

    pooling: Literal["mean", "first", "last", "head"] = pydantic.Field(
        default="mean",
        description="Features: the mean of all tokens, the first or the last token, or what the family's own head "
        "reads (then the result can be written as a transformers model).",
    )
    layer: Annotated[int, pydantic.Field(ge=0)] | None = pydantic.Field(
        default=None, description="Read the output of this many blocks (0: the embeddings); all by default."
    )
    strengths: Annotated[int, pydantic.Field(ge=1, le=1000)] = pydantic.Field(
        default=30, description="Number of L2 strengths on the path, from 100 down to 1e-6."
    )
    cache: Literal["disk", "none"] = pydantic.Field(
        default="disk", description="Keep features in $TUNESMITH_CACHE or the user's cache folder."
    )

    saves = "delta"

    def head(self, task_head: HeadConfig) -> HeadConfig:
        """A bare output layer on the chosen features; the family's head for ``head`` and for tagging."""
        if not isinstance(task_head, ClassifyConfig):
            if self.layer is not None:
                raise SettingError("method.layer: tagging heads read the last layer: leave it out")
            return task_head
        if self.pooling == "head":
            if self.layer is not None:
                raise SettingError("method.layer: the family's own head reads the last layer: set method.pooling=mean")
            return task_head
        changes = {"pooling": self.pooling, "layer": self.layer, "hidden": None, "hidden_dropout": 0.0, "dropout": 0.0}
        return task_head.model_copy(update={**changes, "bias": True})

    def attach(self, model: Model, *, seed: int) -> Attached:
        """Only the output layer trains."""
        layers = model.config.trunk.num_layers
        if self.layer is not None and self.layer > layers:
            raise SettingError(f"method.layer: must be in 0..{layers} for this model, got {self.layer}")
        head = model.config.head
        if isinstance(head, ClassifyConfig) and not head.bias:
            raise SettingError(
                "method.pooling: the family's own head has no bias, which a probe needs: set mean, first or last"
            )
        if self.pooling == "head" and isinstance(head, ClassifyConfig) and head.hidden and model.fresh:
            fresh = [name for name in model.fresh if ".dense." in name]
            if fresh:
                raise SettingError(
                    "method.pooling: the checkpoint has no trained layer for the family's head: set mean, first or last"
                )
        return Attached(model, {"head.output.weight", "head.output.bias"})

    def defaults(self, *, size: int, d_model: int) -> Defaults:
        """The loop is not used."""
        return Defaults(learning_rate=1.0, epochs=1, batch_size=1, patience=1, evaluations=1)

    def solve(self, attached: Attached, data: Data) -> Solution:
        """Extract, solve the path, pick by the dev score, and set the head."""
        reading = Reading("tokens" if data.per_token else self.pooling, self.layer)
        train, hit = self._features(attached.model, data.train, reading, data)
        dev, dev_hit = self._features(attached.model, data.dev, reading, data)
        points = path(
            torch.from_numpy(train if data.rows is None else train[data.rows]),
            data.targets,
            loss=data.loss,
            num_outputs=data.num_outputs,
            values=strengths(self.strengths),
        )
        held = torch.from_numpy(dev)

        def score(logits: Tensor) -> float:
            return data.score(list(logits.split(data.dev.lengths.tolist()) if data.per_token else logits.unbind()))

        best, value, seen = best_point(points, lambda point: score(point.logits(held)))
        own = dict(attached.model.named_parameters())
        with torch.no_grad():
            own["head.output.weight"].copy_(best.weight)
            own["head.output.bias"].copy_(best.bias)
        tokens = (0 if hit else data.train.num_tokens) + (0 if dev_hit else data.dev.num_tokens)
        return Solution(
            facts={
                "l2_strength": best.strength,
                "strengths_tried": len(seen),
                "features_cached": hit and dev_hit,
                "best_dev": value,
            },
            tokens=tokens,
        )

    def _features(
        self, model: Model, examples: Examples, reading: Reading, data: Data
    ) -> tuple[Float[np.ndarray, "M D"], bool]:
        key = content_key(examples, (*data.key(), reading.pooling, str(reading.layer), str(data.dtype)))
        folder = default_folder() if self.cache == "disk" else None
        return cached(folder, key, lambda: extract(model, examples, reading, dtype=data.dtype))
