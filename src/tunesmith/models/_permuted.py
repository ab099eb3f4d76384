"""transformers' calling convention of permuted language modelling: padded masks and maps to packed ones."""

from dataclasses import dataclass

import torch

from tunesmith.base.layout import Layout
from tunesmith.base.shapes import Bool, Float, Int, Shaped, Tensor


@dataclass(frozen=True)
class Targets:
    """Predictions of padded rows, as packed rows.

    Attributes:
        rows: Packed row of each prediction, documents in packed order.
        slots: Its place in (B * M) predictions.
        shape: B and M.
    """

    rows: Int[Tensor, "P"]
    slots: Int[Tensor, "P"]
    shape: torch.Size

    def spread(self, x: Float[Tensor, "P D"]) -> Float[Tensor, "B M D"]:
        """Predictions in their places; zeros where there is none."""
        padded = x.new_zeros(self.shape.numel(), x.shape[1]).index_copy(0, self.slots, x)
        return padded.view(*self.shape, -1)


def hidden_pairs(
    perm_mask: Shaped[Tensor, "B T T"] | None, layout: Layout, columns: Int[Tensor, "N"], order: Int[Tensor, "B"]
) -> Bool[Tensor, "B S S"]:
    """What each place of a document must not see.

    Args:
        perm_mask: 1 where a column of a padded row must not see another; nothing is hidden if None.
        layout: The packed documents.
        columns: Column of each packed token in its padded row.
        order: Padded row of each document.
    """
    device = layout.starts.device
    size = (len(layout.lengths), max(layout.lengths))
    if perm_mask is None:
        return torch.zeros(*size, size[1], dtype=torch.bool, device=device)
    table = torch.zeros(size, dtype=torch.long, device=device)
    table[layout.owners, layout.places] = columns
    documents = order.to(device)[:, None, None]
    return perm_mask.to(device)[documents, table[:, :, None], table[:, None]] > 0


def targets_of(target_mapping: Shaped[Tensor, "B M T"], rows: Int[Tensor, "N"], order: Int[Tensor, "B"]) -> Targets:
    """The packed rows that are predicted; predictions of padding, and empty ones, are left out.

    Args:
        target_mapping: 1 where a prediction is of a column, else 0.
        rows: Row and column of each packed token, as one number.
        order: Padded row of each document.

    Raises:
        ValueError: A prediction is of several tokens, or several are of one.
    """
    wanted = target_mapping.to(rows.device)
    if not ((wanted == 0) | (wanted == 1)).all() or (wanted.sum(1) > 1).any() or (wanted.sum(2) > 1).any():
        raise ValueError("target_mapping: each prediction must be of one token, and each token predicted once at most")
    shape = wanted.shape[:2]
    packed = torch.full((wanted.shape[0] * wanted.shape[2],), -1, device=rows.device)
    packed[rows] = torch.arange(len(rows), device=rows.device)
    documents, predictions, columns = wanted[order.to(rows.device)].nonzero(as_tuple=True)
    padded = order.to(rows.device)[documents]
    found = packed[padded * wanted.shape[2] + columns]
    real = found >= 0
    return Targets(found[real], (padded * shape[1] + predictions)[real], shape)
