"""Two-layer toys of every combination of parts."""

import torch

from tunesmith.base import choices
from tunesmith.models.model import Model, ModelConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.transformer import TransformerConfig

POSITIONS, FEEDFORWARDS, NORMS = (choices.names(family) for family in ("position", "feedforward", "norm"))
KINDS = ("encoder", "decoder", "encoder_decoder")
WORDS = 13
SMALL = {"music": {"max_distance": 6}, "shaw": {"max_distance": 3}, "t5_bias": {"num_buckets": 8, "max_distance": 9}}
SMALL |= {"disentangled": {"num_buckets": 6, "max_distance": 12}, "transformer_xl": {"segments": True}}


def stack(position, feedforward="gelu", norm="layer_norm", **fields):
    """Settings of one stack."""
    sizes = {"vocab_size": WORDS, "d_model": 8, "d_embedding": 8, "num_layers": 2, "num_heads": 2, "d_ff": 6}
    sizes |= {"max_positions": 64, "num_segments": 2, "dropout": 0.0, "attention_dropout": 0.0}
    position = {"name": position, **SMALL.get(position, {})}
    return TransformerConfig(**(sizes | {"position": position, "feedforward": feedforward, "norm": norm} | fields))


def toy(kind, position, feedforward="gelu", norm="layer_norm", *, head=None, seed=0, **fields):
    """A model in float64 with weights that are neither small nor equal; pre-norm where it is a decoder."""
    order = "post" if kind == "encoder" else "pre"
    encoder = stack(position, feedforward, norm, order=order, **fields)
    decoder = stack(position, feedforward, norm, order=order, causal=True, num_segments=0, **fields)
    if kind == "encoder_decoder":
        decoder = decoder.model_copy(update={"cross_attention": True})
    head = LMConfig(activation=None, bias=False, table="own") if head is None else head
    parts = {"encoder": {"encoder": encoder}, "decoder": {"decoder": decoder}}
    parts["encoder_decoder"] = parts["encoder"] | parts["decoder"]
    model = Model(ModelConfig(family="custom", head=head, **parts[kind])).double().eval()
    stream = torch.Generator().manual_seed(seed)
    width = model.config.trunk.d_model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64) * 0.7 * width**-0.5)
            if parameter.ndim == 1:
                parameter.add_(0.7)
    return model


def words(*lengths, seed=0):
    """Packed token ids of documents of these lengths."""
    return torch.randint(0, WORDS, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
