"""LoRA: each chosen linear map gets a low-rank update beside it, y = W x + b + s B A x; the head trains too.

Paper: LoRA (arXiv:2106.09685), section 4.1; rsLoRA (arXiv:2312.03732) for s = alpha / sqrt(rank).
"""

import math
from collections.abc import Mapping, Set
from typing import Annotated, Literal

import pydantic
import torch
import torch.nn.functional as F

from tunesmith.base.random import torch_stream
from tunesmith.base.shapes import Float, Tensor
from tunesmith.models.model import Model
from tunesmith.nn.linear import Linear
from tunesmith.surgery.replace import replace
from tunesmith.surgery.sites import match_sites
from tunesmith.tuning import Attached, Defaults, MethodConfig, epochs_for

ALL = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "cross_attention.query",
    "cross_attention.key",
    "cross_attention.value",
    "cross_attention.output",
    "feedforward.gate",
    "feedforward.up",
    "feedforward.down",
)
"""The default targets: those of them that the model has."""


class LoRAConfig(MethodConfig):
    """Settings of LoRA."""

    rank: Annotated[int, pydantic.Field(ge=1, le=4096)] = pydantic.Field(
        default=8, description="Rank of the update ($r$ in the paper)."
    )
    alpha: Annotated[float, pydantic.Field(gt=0)] = pydantic.Field(
        default=16.0, description="Strength: the update is scaled by alpha / rank."
    )
    dropout: Annotated[float, pydantic.Field(ge=0, lt=1)] = pydantic.Field(
        default=0.0, description="Dropout of the update's input."
    )
    targets: tuple[str, ...] = pydantic.Field(
        default=ALL,
        min_length=1,
        description="Sites by name or pattern, such as attention.query or *.blocks.[0-2].*; "
        "by default all maps of attention and feed-forward that the model has.",
    )
    scaling: Literal["classic", "rslora"] = pydantic.Field(
        default="classic", description="classic: alpha / rank; rslora: alpha / sqrt(rank), for large ranks."
    )

    saves = "peft"

    @pydantic.field_validator("targets", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @property
    def scale(self) -> float:
        """Factor of the update."""
        return self.alpha / (math.sqrt(self.rank) if self.scaling == "rslora" else self.rank)

    def attach(self, model: Model, *, seed: int) -> "AttachedLoRA":
        """Put an update beside each target; A is random, B is zero, so that nothing changes at first."""
        optional = ALL if self.targets == ALL else ()
        sites = match_sites(model, self.targets, setting="method.targets", optional=optional)
        modules = {}
        for name, base in sites.items():
            update = LoRALinear(base, rank=self.rank, scale=self.scale, dropout=self.dropout)
            noise = torch_stream("lora", seed, name)
            bound = 1 / math.sqrt(base.in_features)  # kaiming_uniform(a = sqrt 5), as in the paper's code and PEFT
            with torch.no_grad():
                drawn = torch.empty(self.rank, base.in_features).uniform_(-bound, bound, generator=noise)
                update.lora_A.copy_(drawn)
            modules[name] = update
        return AttachedLoRA.place(model, modules)

    def defaults(self, *, size: int, d_model: int) -> Defaults:
        """Larger steps than full tuning, more passes over small data."""
        return Defaults(
            learning_rate=1e-3 * min(1.0, 384 / d_model) ** 0.5,
            epochs=epochs_for(size, short=3, long=8),
            batch_size=32 if size >= 500 else 16,
            patience=4,
            evaluations=10,
        )


class AttachedLoRA(Attached):
    """LoRA on a model."""

    def __init__(self, model: Model, sites: list[str], *, also: Set[str] = frozenset()):
        names = {f"{site}.{part}" for site in sites for part in ("lora_A", "lora_B")}
        heads = {name for name, _ in model.named_parameters() if name.startswith("head.")}
        super().__init__(model, names | heads | also)
        self.sites = sites

    @classmethod
    def place(
        cls, model: Model, modules: Mapping[str, "LoRALinear"], *, also: Set[str] = frozenset()
    ) -> "AttachedLoRA":
        """Put the modules at their sites; ``also`` names other parameters that train, as they are called then."""
        for site, module in modules.items():
            replace(model, site, module)
        return cls(model, list(modules), also=also)

    def modules(self) -> dict[str, "LoRALinear"]:
        """The injected modules by site."""
        found = {site: self.model.get_submodule(site) for site in self.sites}
        return {site: module for site, module in found.items() if isinstance(module, LoRALinear)}

    def merge(self) -> None:
        """W becomes W + s B A; the old W is kept for `unmerge`."""
        for module in self.modules().values():
            module.merge()

    def unmerge(self) -> None:
        """The old W, bit for bit."""
        for module in self.modules().values():
            module.unmerge()

    def detach(self) -> None:
        """Put the plain linear maps back (merged ones stay merged)."""
        for site, module in self.modules().items():
            replace(self.model, site, module.base)
        super().detach()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put a saved state back."""
        assert not any(module.merged for module in self.modules().values())
        super().load(state)


class LoRALinear(torch.nn.Module):
    """A linear map with a low-rank update beside it.

    Args:
        base: The map; its parameters stay frozen.
        rank: Rank of the update, R.
        scale: Factor of the update.
        dropout: Dropout of the update's input.
    """

    def __init__(self, base: Linear, *, rank: int, scale: float, dropout: float):
        super().__init__()
        self.base = base
        self.scale = scale
        self.dropout = dropout
        like = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.lora_A = torch.nn.Parameter(torch.zeros(rank, base.in_features, **like))
        self.lora_B = torch.nn.Parameter(torch.zeros(base.out_features, rank, **like))
        self._kept: Tensor | None = None

    @property
    def merged(self) -> bool:
        """Whether the update is folded into the base weight."""
        return self._kept is not None

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """W x + b + s B A x."""
        if self.merged:
            return self.base(x)
        if self.dropout and self.training and torch.is_grad_enabled():
            update = F.linear(F.dropout(x, self.dropout), self.lora_A.to(x.dtype))
            return self.base(x) + F.linear(update, (self.lora_B * self.scale).to(x.dtype))
        return _LoRA.apply(x, self.base.weight, self.base.bias, self.lora_A, self.lora_B, self.scale)

    def merge(self) -> None:
        """Fold the update into the base weight."""
        if not self.merged:
            weight = self.base.weight
            self._kept = weight.detach().clone()
            with torch.no_grad():
                weight.add_((self.lora_B @ self.lora_A).to(weight.dtype), alpha=self.scale)

    def unmerge(self) -> None:
        """Put the kept base weight back."""
        if self._kept is not None:
            with torch.no_grad():
                self.base.weight.copy_(self._kept)
            self._kept = None


class _LoRA(torch.autograd.Function):
    """One node for the whole site: the frozen map needs no weight gradient, the small products share their inputs."""

    @staticmethod
    def forward(ctx, x, weight, bias, lora_a, lora_b, scale):
        small_a = lora_a.to(x.dtype)
        small_b = (lora_b * scale).to(x.dtype)
        inner = x @ small_a.t()  # (N, R)
        y = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        y.addmm_(inner, small_b.t())
        ctx.save_for_backward(x, weight, small_a, small_b, inner)
        ctx.scale = scale
        ctx.dtypes = lora_a.dtype, lora_b.dtype
        return y

    @staticmethod
    def backward(ctx, *grads):
        (grad,) = grads
        x, weight, small_a, small_b, inner = ctx.saved_tensors
        grad_inner = grad @ small_b  # (N, R)
        grad_b = (grad.t() @ inner).to(ctx.dtypes[1]) * ctx.scale
        grad_a = (grad_inner.t() @ x).to(ctx.dtypes[0])
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight.to(grad.dtype)).addmm_(grad_inner, small_a)
        return grad_x, None, None, grad_a, grad_b, None
