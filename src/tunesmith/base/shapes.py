"""The alphabet of shapes in signatures.

B batch, T tokens, S key tokens, N tokens of all documents of a packed batch, D model width, H heads, K head width,
F feed-forward width, V vocabulary, L layers, R rank, C classes, G documents of one attention group.
"""

from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Shaped", "Tensor", "UInt8"]
