"""How RoPE is stretched to documents longer than those it was trained on.

Papers: Position Interpolation (arXiv:2306.15595), equation 4; YaRN (arXiv:2309.00071), section 3 (also for NTK-aware
and dynamic NTK); Llama 3 (arXiv:2407.21783), in the form of its released code.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import pydantic
import torch

from tunesmith.base.config import Config
from tunesmith.base.shapes import Float, Int, Tensor

Frequencies = Float[Tensor, "... F"]
Factor = Annotated[float, pydantic.Field(ge=1, description="How many times longer the documents become.")]
Original = Annotated[int, pydantic.Field(ge=1, description="Longest document of training, in tokens.")]


class Extension(Config):
    """Base: turns the frequencies of RoPE; without change."""

    def base_for(self, base: float, width: int) -> float:
        """The base of the frequencies."""
        return base

    def frequencies(self, plain: Float[Tensor, "F"], base: float) -> Float[Tensor, "F"]:
        """Frequencies for all documents."""
        return plain

    def by_length(
        self, make: Callable[[Tensor], Tensor], lengths: Int[Tensor, "N"], base: float, width: int
    ) -> Float[Tensor, "N F"] | None:
        """Frequencies that depend on each document's length; None where they do not."""
        return None

    @property
    def amplitude(self) -> float:
        """Factor of the cosines and sines, so that scores have its square."""
        return 1.0


class Linear(Extension):
    """Position Interpolation: positions / factor."""

    kind: Literal["linear"] = "linear"
    factor: Factor

    def frequencies(self, plain: Float[Tensor, "F"], base: float) -> Float[Tensor, "F"]:
        """All frequencies / factor."""
        return plain / self.factor


class NTK(Extension):
    """NTK-aware: a larger base, so that slow frequencies are interpolated and fast ones hardly."""

    kind: Literal["ntk"] = "ntk"
    factor: Factor

    def base_for(self, base: float, width: int) -> float:
        """Base factor^(d / (d - 2))."""
        return base * self.factor ** (width / (width - 2))


class Dynamic(Extension):
    """Dynamic NTK: the base follows the length of the document, beyond the original one.

    Differs: the length is each document's own, not that of the longest one in the batch.
    """

    kind: Literal["dynamic"] = "dynamic"
    factor: Factor
    original: Original

    def by_length(
        self, make: Callable[[Tensor], Tensor], lengths: Int[Tensor, "N"], base: float, width: int
    ) -> Float[Tensor, "N F"]:
        """Of base (factor L / L0 - (factor - 1))^(d / (d - 2))."""
        longer = lengths.clamp(min=self.original).double()
        stretched = base * (self.factor * longer / self.original - (self.factor - 1)) ** (width / (width - 2))
        return make(stretched[:, None])


class YaRN(Extension):
    """YaRN: fast frequencies stay, slow ones are interpolated, a ramp between; scores are made a little sharper."""

    kind: Literal["yarn"] = "yarn"
    factor: Factor
    original: Original
    beta_fast: float = pydantic.Field(default=32.0, gt=0, description="Turns in the original length that stay.")
    beta_slow: float = pydantic.Field(default=1.0, gt=0, description="Turns that are wholly interpolated.")
    attention_factor: float | None = pydantic.Field(
        default=None, gt=0, description="Factor of cosines and sines; 0.1 ln(factor) + 1 by default."
    )
    truncate: bool = pydantic.Field(default=True, description="Round the ends of the ramp to whole dimensions.")

    def frequencies(self, plain: Float[Tensor, "F"], base: float) -> Float[Tensor, "F"]:
        """Mixed by the ramp."""
        width = 2 * len(plain)

        def dimension(turns: float) -> float:
            return width * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(base))

        low, high = dimension(self.beta_fast), dimension(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        high = high + 0.001 if low == high else high
        steps = torch.arange(len(plain), dtype=plain.dtype, device=plain.device)
        ramp = ((steps - low) / (high - low)).clamp(0, 1)
        return plain / self.factor * ramp + plain * (1 - ramp)

    @property
    def amplitude(self) -> float:
        """Sharper scores for longer documents."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0


class Llama3(Extension):
    """Llama 3: long wavelengths are divided by the factor, short ones stay, smoothly between."""

    kind: Literal["llama3"] = "llama3"
    factor: Factor
    original: Original
    low_freq_factor: float = pydantic.Field(default=1.0, gt=0, description="Turns below which all is interpolated.")
    high_freq_factor: float = pydantic.Field(default=4.0, gt=0, description="Turns above which nothing is.")

    def frequencies(self, plain: Float[Tensor, "F"], base: float) -> Float[Tensor, "F"]:
        """Mixed by the number of turns in the original length."""
        turns = self.original * plain / (2 * math.pi)
        share = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        share = share.clamp(0, 1)
        return plain / self.factor * (1 - share) + plain * share


AnyExtension = Annotated[Linear | NTK | Dynamic | YaRN | Llama3, pydantic.Field(discriminator="kind")]
