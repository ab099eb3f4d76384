"""UniLM: one encoder learns to predict hidden tokens from both sides, from one side, and from another text.

Each sample draws what its tokens may see: with probability 1/3 all; 1/3 the first text sees itself, the second one the
first and what stands before it (sequence to sequence); 1/6 each: what stands before, what stands behind. The loss is
that of masked language modelling.

Paper: UniLM (arXiv:1905.03197), sections 2.2 and 2.3.
Differs: no next-sentence prediction, and segments are the input's: the paper has a segment embedding for each way of
seeing, which checkpoints of other families lack. The paper masks a bigram or trigram in 20 % of the cases: set
``unit=ngram`` for more of them.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pydantic
import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Bool
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.objectives import Batch, ObjectiveConfig
from tunesmith.objectives._masking import Masking, MaskingConfig, documents_of
from tunesmith.objectives._packing import by_length, packed
from tunesmith.objectives._run import family_head, need
from tunesmith.objectives.mlm import MLM
from tunesmith.text.inputs import InputConfig
from tunesmith.text.sample import Drawn, Sample, Vocabulary


class UniLMConfig(MaskingConfig, ObjectiveConfig):
    """Settings of UniLM's objective; the shares need not add up to 1."""

    both_ways: float = pydantic.Field(default=1.0, ge=0, description="Share of samples whose tokens see all.")
    to_second: float = pydantic.Field(
        default=1.0, ge=0, description="Share whose second text is predicted from the first and from its own past."
    )
    one_way: float = pydantic.Field(
        default=1.0, ge=0, description="Share whose tokens see what stands before them, or (half of it) behind them."
    )

    @pydantic.model_validator(mode="after")
    def _some_share(self) -> "UniLMConfig":
        if not self.both_ways + self.to_second + self.one_way:
            raise ValueError("both_ways, to_second and one_way must not all be 0")
        return self

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head.

        Raises:
            SettingError: The model is no encoder, or has a convolution, which sees both sides.
        """
        need(model, "unilm", kind="encoder")
        if model.config.trunk.convolution is not None:
            raise SettingError(
                f"objective: unilm hides what stands behind a token, but the convolution of {model.config.family} "
                "sees it: take another model"
            )
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "UniLM":
        """The objective."""
        shares = (self.both_ways, self.to_second, self.one_way / 2, self.one_way / 2)
        return UniLM(Masking(self, vocabulary, objective="unilm"), shares=shares)

    def check_input(self, input: InputConfig) -> None:
        """Refuse texts that come alone, where second ones are asked for."""
        if self.to_second and input.num_texts != 2:
            raise _no_pairs()

    @property
    def duplicates(self) -> int | None:
        """Frozen copies, where masking is static."""
        return self.frozen


class UniLM(MLM):
    """Masked language modelling in which each sample draws what its tokens see.

    Args:
        masking: Chooses tokens and hides them.
        shares: Of samples that see all, of those with a second text from the first, from left to right, and from right
            to left.
    """

    def __init__(self, masking: Masking, *, shares: tuple[float, float, float, float]):
        super().__init__(masking)
        self._up_to = np.cumsum(shares)

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch.

        Raises:
            SettingError: A sample that draws sequence to sequence is not of two texts.
        """
        pieces, views = [], []
        for one in drawn:
            masked = self.masking(one)
            way = int(np.searchsorted(self._up_to, one.stream.random() * self._up_to[-1], "right"))
            for piece in documents_of(one.sample, masked):
                pieces.append(piece)
                views.append(_hidden(one.sample, len(piece.ids), way))
        order = by_length(pieces)
        source, rows, labels = packed([pieces[i] for i in order], device=device)
        longest = max(len(piece.ids) for piece in pieces)
        hidden = np.zeros((len(pieces), longest, longest), dtype=bool)
        for place, i in enumerate(order):
            size = len(views[i])
            hidden[place, :size, :size] = views[i]
        batch = Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels)
        return replace(batch, hidden=torch.from_numpy(hidden).to(device))


def _hidden(sample: Sample, size: int, way: int) -> Bool[np.ndarray, "T T"]:
    """Where the token of a row must not see that of a column."""
    ahead = np.triu(np.ones((size, size), dtype=bool), 1)
    if way == 0:
        return np.zeros((size, size), dtype=bool)
    if way == 2:
        return ahead
    if way == 3:
        return ahead.T
    first = _first_text(sample)
    ahead[:first, :first] = False
    return ahead


def _first_text(sample: Sample) -> int:
    """Tokens of the first text, with the special ones before it and behind it."""
    text = np.flatnonzero(~sample.special)
    gaps = np.flatnonzero(np.diff(text) != 1)
    if len(gaps) != 1 or len(sample.lengths) != 1:
        raise _no_pairs()
    return int(text[gaps[0] + 1])


def _no_pairs() -> SettingError:
    return SettingError(
        "objective: unilm predicts a second text from a first one, but this input does not give two texts: set "
        "input=segment_pair, or objective.to_second=0"
    )
