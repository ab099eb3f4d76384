r"""Permuted language modelling: predict some tokens, each from what comes before it in a random order (XLNet).

With $z_i$ the place of token i in the order: token j is hidden from i where j is a target or a special token and
$z_i \le z_j$, but only targets do not see themselves. All other tokens come first: everyone sees them, and they see
only each other.

Paper: XLNet: Generalized Autoregressive Pretraining for Language Understanding (arXiv:1906.08237), sections 2.2 to 2.4.
Differs: the released code takes spans of whole words, here they are of tokens; there is no memory of a segment before.
Without memory its ``bi_data`` (text reversed, distances negated) is a sequence whose special tokens stand at the other
end: ``backward``.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pydantic
import torch

from tunesmith.base.errors import SettingError
from tunesmith.base.shapes import Int, Tensor
from tunesmith.models.model import Model
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.two_streams import two_streams
from tunesmith.objectives import Batch, ObjectiveConfig, Piece
from tunesmith.objectives._documents import documents
from tunesmith.objectives._lm import LMObjective
from tunesmith.objectives._packing import by_length, packed
from tunesmith.objectives._run import family_head, lm_of, need, of_rows
from tunesmith.text.sample import Drawn, Vocabulary

_LONGEST = 5
_UP_TO = np.cumsum(1 / np.arange(1, _LONGEST + 1))
_UP_TO /= _UP_TO[-1]  # P(length <= n): as 1 / n in the released code


class PermutedLMConfig(ObjectiveConfig):
    """Settings of permuted language modelling."""

    one_in: int = pydantic.Field(
        default=6, ge=2, le=1000, description="One token of so many is predicted; K in the paper."
    )
    perm_size: int = pydantic.Field(
        default=256, ge=1, le=10_000_000, description="Tokens of a block; only inside blocks are tokens permuted."
    )
    backward: float = pydantic.Field(
        default=0.0, ge=0, le=1, description="Share of texts that are read as by XLNet's bi_data: see above."
    )

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "permuted_lm", kind="encoder")
        if model.trunk.embeddings.query is None:
            raise SettingError(
                f"objective: permuted_lm needs a model with a query stream, which {model.config.family} has not: take "
                "xlnet, or a custom encoder with query_stream = learned"
            )
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "PermutedLM":
        """The objective."""
        return PermutedLM(self)


class PermutedLM(LMObjective):
    """Two streams: the query stream of the targets, over the content stream of all tokens.

    Args:
        config: The settings.
    """

    def __init__(self, config: PermutedLMConfig):
        self.config = config

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch."""
        pieces, orders, alones = [], [], []
        for one in documents(drawn):
            sample, stream, step = one.sample, one.stream, 1
            if self.config.backward and stream.random() < self.config.backward:
                step = -1
            ids, segments, special = sample.ids[::step], sample.segments[::step], sample.special[::step]
            text = np.flatnonzero(~special)
            places = text[self._targets(len(text), stream)]
            target = np.zeros(len(ids), dtype=bool)
            target[places] = True
            # -1: what all see
            order = np.where(target | special, self._order(len(ids), stream), -1)
            pieces.append(Piece(ids, segments=segments, places=places, labels=ids[places]))
            orders.append(order)
            alones.append(order + ~target)
        packing = by_length(pieces)
        source, rows, labels = packed([pieces[i] for i in packing], device=device)
        width = max(source.layout.lengths)
        order, alone = (
            torch.from_numpy(_padded([found[i] for i in packing], width)).to(device) for found in (orders, alones)
        )
        return Batch(
            len(drawn),
            source.layout.num_tokens,
            source,
            rows=rows,
            labels=labels,
            hidden=(alone[:, :, None] <= order[:, None]) & (order >= 0)[:, None],
        )

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sum of the cross-entropies."""
        assert batch.rows is not None
        assert batch.labels is not None
        assert batch.hidden is not None
        run = partial(
            two_streams,
            model.trunk,
            batch.source.token_ids,
            batch.source.layout,
            hidden=batch.hidden,
            dtype=model.compute_dtype,
        )
        found = of_rows(batch.rows, lambda targets: run(targets=targets))
        return {"lm": lm_of(model).loss(found, batch.labels)}

    def _targets(self, num_tokens: int, stream: np.random.Generator) -> Int[np.ndarray, "P"]:
        """Spans of 1 to 5 tokens, each inside a context K times as long; never all tokens: a target must see one."""
        goal = min(max(1, round(num_tokens / self.config.one_in)), num_tokens - 1)
        if goal < 1:
            return np.zeros(0, dtype=np.int64)
        lengths = 1 + np.searchsorted(_UP_TO, stream.random(goal), side="right")
        offsets = np.floor(stream.random(goal) * ((self.config.one_in - 1) * lengths + 1)).astype(np.int64)
        contexts = self.config.one_in * (np.cumsum(lengths) - lengths)
        starts = contexts + offsets
        lengths = lengths[starts + lengths <= num_tokens]
        begin = np.cumsum(lengths) - lengths
        found = np.repeat(starts[: len(lengths)] - begin, lengths) + np.arange(lengths.sum())
        found = found[:goal]
        if len(found) < goal:
            others = np.setdiff1d(np.arange(num_tokens), found, assume_unique=True)
            more = stream.choice(others, goal - len(found), replace=False, shuffle=False)
            found = np.sort(np.concatenate([found, more]))
        return found

    def _order(self, num_tokens: int, stream: np.random.Generator) -> Int[np.ndarray, "T"]:
        """Place of each token in the order: the same permutation in each block."""
        size = min(self.config.perm_size, num_tokens)
        places = np.arange(num_tokens)
        return places - places % size + stream.permutation(size)[places % size]


def _padded(rows: Sequence[Int[np.ndarray, "_"]], width: int) -> Int[np.ndarray, "B T"]:
    found = np.full((len(rows), width), -1)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found
