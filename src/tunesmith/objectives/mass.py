"""MASS: the encoder reads a text with half of it masked in one piece, and the decoder writes that piece.

Paper: MASS: Masked Sequence to Sequence Pre-training for Language Generation (arXiv:1905.02450), section 3.2; the
released code for where the piece begins and for 80/10/10.
"""

from collections.abc import Sequence

import numpy as np
import pydantic
import torch

from tunesmith.base.shapes import Int
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig, Piece
from tunesmith.objectives._documents import Pair, both_sides, documents, written
from tunesmith.objectives._lm import LMObjective
from tunesmith.objectives._run import family_head, need
from tunesmith.text.sample import Drawn, Vocabulary


class MASSConfig(ObjectiveConfig):
    """Settings of MASS."""

    span: float = pydantic.Field(default=0.5, gt=0, le=1, description="Share of the text that is masked and written.")
    front: float = pydantic.Field(default=0.2, ge=0, le=1, description="Share of texts whose span is at the front.")
    back: float = pydantic.Field(default=0.2, ge=0, le=1, description="Share at the end; the others are anywhere.")
    mask_share: float = pydantic.Field(default=0.8, ge=0, le=1, description="Share of the span that becomes masks.")
    random_share: float = pydantic.Field(
        default=0.1, ge=0, le=1, description="Share of the span that becomes random tokens; the rest stays."
    )

    @pydantic.model_validator(mode="after")
    def _shares_fit(self) -> "MASSConfig":
        for one, other in (("front", "back"), ("mask_share", "random_share")):
            total = getattr(self, one) + getattr(self, other)
            if total > 1 + 1e-9:
                raise ValueError(f"{one} and {other} must not be more than 1 together, they are {total:g}")
        return self

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "mass", kind="encoder-decoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "MASS":
        """The objective."""
        mask = vocabulary.need_mask("mass")
        return MASS(self, mask=mask, ordinary=vocabulary.ordinary(), start=model.decoder_start)


class MASS(LMObjective):
    """x1 _ _ x4 </s>, and to be written at positions 1 and 2: x2 x3, from x1 x2.

    Args:
        config: The settings.
        mask: The mask token.
        ordinary: What random tokens are drawn from.
        start: What the decoder reads where the span begins the sequence.
    """

    def __init__(self, config: MASSConfig, *, mask: int, ordinary: Int[np.ndarray, "N"], start: int):
        self.config, self.mask, self.ordinary, self.start = config, mask, ordinary, start

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch."""
        pairs = [self._mask(one) for one in documents(drawn)]
        return both_sides(pairs, num_samples=len(drawn), device=device)

    def _mask(self, one: Drawn) -> Pair:
        ids, stream, config = one.sample.ids, one.stream, self.config
        text = np.flatnonzero(~one.sample.special)
        if not len(text):
            return Piece(ids), Piece(np.array([self.start]))
        size = max(1, round(config.span * len(text)))
        last = len(text) - size
        where = stream.random()
        if where < config.front:
            begin = 0
        elif where < config.front + config.back:
            begin = last
        else:
            begin = int(stream.integers(last + 1))
        places = text[begin : begin + size]
        fate = stream.random(size)
        others = self.ordinary[stream.integers(len(self.ordinary), size=size)]
        source = ids.copy()
        source[places] = np.where(
            fate < config.mask_share,
            self.mask,
            np.where(fate < config.mask_share + config.random_share, others, ids[places]),
        )
        whole = written(ids, start=self.start)
        target = Piece(whole.ids[places], positions=places, places=np.arange(size), labels=ids[places])
        return Piece(source), target
