"""Padded rows, as transformers takes them, and their packed form."""

import torch

from tunesmith.base.layout import Layout, make_layout
from tunesmith.base.shapes import Float, Int, Shaped, Tensor


class Padded:
    """Padded rows and their packed form, shortest document first.

    Args:
        shape: Rows and columns.
        mask: 1 for real tokens; all real if None.
        device: Where the model lives.
        order: Rows in the order to pack them; by length if None.

    Raises:
        ValueError: A row has no tokens.
    """

    def __init__(
        self, shape: torch.Size, mask: Tensor | None, *, device: torch.device, order: Int[Tensor, "B"] | None = None
    ):
        real = torch.ones(shape, dtype=torch.bool) if mask is None else mask.bool().cpu()
        counts = real.sum(1)
        if not counts.all():
            raise ValueError("attention_mask: a row has no tokens")
        self.shape, self.device = shape, device
        self.order = counts.argsort(stable=True) if order is None else order
        self.lengths = counts[self.order].tolist()
        documents, columns = real[self.order].nonzero(as_tuple=True)
        self.rows = (self.order[documents] * shape[1] + columns).to(device)

    def layout(self, positions: Tensor, segments: Tensor | None, noise: torch.Generator | None) -> Layout:
        """Where the packed documents lie; positions are (B, T) or (1, T), of the padded rows."""
        return make_layout(
            self.lengths,
            device=self.device,
            positions=positions.to(self.device).expand(self.shape).reshape(-1)[self.rows],
            segments=None if segments is None else self.pack(segments),
            noise=noise,
        )

    def pack(self, x: Shaped[Tensor, "B T *rest"]) -> Shaped[Tensor, "N *rest"]:
        """The real tokens of padded rows."""
        return x.to(self.device).flatten(0, 1)[self.rows]

    def spread(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "B T D"]:
        """Packed rows in their places, zeros elsewhere."""
        padded = x.new_zeros(self.shape[0] * self.shape[1], x.shape[1]).index_copy(0, self.rows, x)
        return padded.view(*self.shape, -1)

    def in_order(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """One row a document, in the order of the padded rows."""
        return x[self.order.argsort().to(self.device)]
