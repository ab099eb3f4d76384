"""SpanBERT: masked spans, each token of which is also predicted from the two tokens beside its span.

The span boundary objective predicts x_i of the masked span (s, ..., e) as

    h0 = [x_{s-1}; x_{e+1}; p_{i-s+1}],  h1 = norm(gelu(W1 h0)),  h2 = norm(gelu(W2 h1)),  softmax(E h2)

with the hidden states x of the encoder, position embeddings p and the token table E. The loss is the mean of masked
language modelling plus the mean of this over the tokens that it is asked for.

Paper: SpanBERT (arXiv:1907.10529), sections 3.1 and 3.2; as there, one segment and no pairs: input=doc_sentences.
Constants: spans of 1 to 10 words, geometric with p = 0.2; position embeddings of width 200 for the first 20 tokens of a
span (the released code's; longer spans come from merging).
Differs: the last span of a text ends at a word's end; see also `Masking` in ``_masking.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.shapes import Float, Int, Tensor
from tunesmith.models.model import Model
from tunesmith.nn.cross_entropy import linear_cross_entropy
from tunesmith.nn.head import HeadConfig
from tunesmith.nn.init import init_normal
from tunesmith.nn.linear import Linear
from tunesmith.nn.norm import NormConfig
from tunesmith.objectives import Batch, Objective, ObjectiveConfig, Phase, Piece
from tunesmith.objectives._masking import Masking, MaskingConfig, Unit, documents_of
from tunesmith.objectives._packing import by_length, packed
from tunesmith.objectives._run import family_head, hidden_states, lm_of, need
from tunesmith.objectives._units import run_begins
from tunesmith.text.sample import Drawn, Vocabulary


class SBOConfig(MaskingConfig, ObjectiveConfig):
    """Settings of SpanBERT's objective."""

    unit: Unit = pydantic.Field(default="span", description="What is chosen together, as for objective mlm.")
    weight: float = pydantic.Field(default=1.0, gt=0, description="Weight of the span boundary objective.")
    max_targets: int = pydantic.Field(
        default=20, ge=1, description="Tokens of a span that it predicts, the first ones."
    )
    d_position: int = pydantic.Field(default=200, ge=1, description="Width of its position embeddings.")

    def head(self, model: Model) -> HeadConfig | None:
        """The family's LM head."""
        need(model, "sbo", kind="encoder")
        return family_head(model, "lm")

    def build(self, model: Model, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> "SBO":
        """The objective, with a fresh network of the boundaries."""
        trunk = model.config.trunk
        boundary = Boundary(
            d_model=trunk.d_model,
            d_embedding=trunk.d_embedding,
            d_position=self.d_position,
            max_targets=self.max_targets,
            norm=trunk.norm,
        )
        init_normal(boundary, std=trunk.initial_std, seed=seed, name="boundary")
        masking = Masking(self, vocabulary, objective="sbo")
        return SBO(masking, boundary.to(model.device), weight=self.weight)

    @property
    def duplicates(self) -> int | None:
        """Frozen copies, where masking is static."""
        return self.frozen


class Boundary(torch.nn.Module):
    """What a token in a span should be, from the tokens beside the span; the output is that of the token table.

    Args:
        d_model: Width of the model.
        d_embedding: Width of the token table.
        d_position: Width of the position embeddings.
        max_targets: Tokens of a span.
        norm: The model's normalisation.
    """

    def __init__(self, *, d_model: int, d_embedding: int, d_position: int, max_targets: int, norm: NormConfig):
        super().__init__()
        self.positions = torch.nn.Embedding(max_targets, d_position)
        self.inner = Linear(2 * d_model + d_position, d_model)
        self.inner_norm = norm.build(width=d_model)
        self.outer = Linear(d_model, d_embedding)
        self.outer_norm = norm.build(width=d_embedding)

    def forward(
        self, left: Float[Tensor, "M D"], right: Float[Tensor, "M D"], offsets: Int[Tensor, "M"]
    ) -> Float[Tensor, "M E"]:
        """What the token table is applied to.

        Args:
            left: Hidden state of the token before the span.
            right: Hidden state of the token behind it.
            offsets: Place in the span.
        """
        x = torch.cat([left, right, F.embedding(offsets, self.positions.weight).to(left.dtype)], 1)
        return self.outer_norm(F.gelu(self.outer(self.inner_norm(F.gelu(self.inner(x))))))


class SBO(Objective):
    """Masked language modelling with spans, and their boundaries.

    Args:
        masking: Chooses spans and hides them.
        boundary: The network of the boundaries.
        weight: Weight of what it predicts.
    """

    def __init__(self, masking: Masking, boundary: Boundary, *, weight: float):
        self.masking = masking
        self.boundary = boundary
        self.weight = weight

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]:
        """The network of the boundaries."""
        return {"boundary": self.boundary}

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One update."""
        return (Phase("train", {"lm": 1.0, "sbo": self.weight}, lambda name: True),)

    def prepare(self, drawn: Sequence[Drawn], *, device: torch.device | str = "cpu") -> Batch:
        """A micro-batch; documents of one row do not see each other."""
        pieces = [piece for one in drawn for piece in documents_of(one.sample, self.masking(one))]
        pieces = [pieces[i] for i in by_length(pieces)]
        source, rows, labels = packed(pieces, device=device)
        batch = Batch(len(drawn), source.layout.num_tokens, source, rows=rows, labels=labels)
        return replace(batch, more=_asked(pieces, rows, labels, self.boundary.positions.num_embeddings))

    def targets(self, batch: Batch) -> dict[str, int]:
        """Hidden tokens, and those asked of the boundaries."""
        assert batch.rows is not None
        return {"lm": len(batch.rows), "sbo": len(batch.more["labels"])}

    def answers(self, batch: Batch) -> dict[str, Tensor]:
        """Hidden tokens, and those asked of the boundaries."""
        return super().answers(batch) | {"sbo": batch.more["labels"]}

    def loss(self, model: Model, batch: Batch, *, phase: str) -> dict[str, Tensor]:
        """Sums of the cross-entropies."""
        assert batch.labels is not None
        more = batch.more
        hidden = hidden_states(model, batch, more["wanted"])
        guess = self.boundary(hidden[more["left"]], hidden[more["right"]], more["offsets"])
        table = model.trunk.embeddings.tokens.weight
        return {
            "lm": lm_of(model).loss(hidden[more["lm"]], batch.labels),
            "sbo": linear_cross_entropy(guess, table, None, more["labels"]),
        }


def _asked(pieces: Sequence[Piece], rows: Tensor, labels: Tensor, most: int) -> dict[str, Tensor]:
    """Which rows are wanted of the model, and which of them stand beside the tokens asked of the boundaries.

    A span at the very beginning or end of its document lacks a neighbour and is not asked for.
    """
    device = rows.device
    lengths = [len(piece.ids) for piece in pieces]
    owner = np.repeat(np.arange(len(pieces)), [len(piece.places) for piece in pieces])
    place = rows.cpu().numpy()
    ends = np.cumsum(lengths)
    begins = run_begins(place)
    begins[1:] |= owner[1:] != owner[:-1]
    first = np.flatnonzero(begins)
    span = np.cumsum(begins) - 1
    start = place[first][span]
    stop = place[np.append(first, len(place))[1:] - 1][span] + 1
    whole = (start > (ends - lengths)[owner]) & (stop < ends[owner])
    asked = np.flatnonzero(whole & (place - start < most))
    left, right = torch.from_numpy(start[asked] - 1).to(device), torch.from_numpy(stop[asked]).to(device)
    wanted, where = torch.cat([rows, left, right]).unique(return_inverse=True)
    lm, left, right = where.split([len(rows), len(asked), len(asked)])
    return {
        "wanted": wanted,
        "lm": lm,
        "left": left,
        "right": right,
        "offsets": torch.from_numpy((place - start)[asked]).to(device),
        "labels": labels[torch.from_numpy(asked).to(device)],
    }
