"""Documents, as an objective has changed them, side by side in a stack's rows."""

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.base.layout import make_layout, spare_rows
from tunesmith.base.shapes import Int, Tensor
from tunesmith.objectives import Piece, Rows


def by_length(pieces: Sequence[Piece]) -> list[int]:
    """The order that documents are packed in: shortest first, equal ones as they come."""
    return sorted(range(len(pieces)), key=lambda i: (len(pieces[i].ids), i))


def packed(
    pieces: Sequence[Piece], *, device: torch.device | str = "cpu"
) -> tuple[Rows, Int[Tensor, "P"], Int[Tensor, "P"]]:
    """Pack documents in the order they are given; gives them, the rows that are predicted, and their labels."""
    lengths = [len(piece.ids) for piece in pieces]
    spare = spare_rows(sum(lengths))
    segments = [np.zeros(len(p.ids), np.int64) if p.segments is None else p.segments for p in pieces]
    positions = None
    if any(piece.positions is not None for piece in pieces):
        whole = [np.arange(len(p.ids)) if p.positions is None else p.positions for p in pieces]
        positions = torch.from_numpy(np.concatenate(whole).astype(np.int64))
    layout = make_layout(
        lengths,
        device=device,
        positions=positions,
        segments=torch.from_numpy(np.concatenate(segments).astype(np.int64)),
        spare=spare,
    )
    ids = np.pad(np.concatenate([piece.ids for piece in pieces]), (0, spare)).astype(np.int64)
    starts = np.cumsum([0, *lengths[:-1]])
    rows = np.concatenate([np.sort(p.places) + start for p, start in zip(pieces, starts, strict=True)])
    labels = np.concatenate([p.labels[np.argsort(p.places, kind="stable")] for p in pieces])
    return (
        Rows(torch.from_numpy(ids).to(device), layout),
        torch.from_numpy(rows.astype(np.int64)).to(device),
        torch.from_numpy(labels.astype(np.int64)).to(device),
    )
