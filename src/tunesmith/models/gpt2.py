"""GPT-2: decoder with learned positions and pre-norm; the output matrix is the token table.

Paper: Language Models are Unsupervised Multitask Learners (Radford et al., 2019).
"""

from collections.abc import Sequence
from typing import Any

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, Fused, Stacks
from tunesmith.models._activations import PLAIN, name_of
from tunesmith.models._decoder import decoder, heads
from tunesmith.models._fields import flag, look_up, may, need, refuse, renamed, settings
from tunesmith.nn.norm.layer_norm import LayerNormConfig
from tunesmith.nn.position.learned import LearnedConfig
from tunesmith.nn.transformer import TransformerConfig

_OTHER_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_FOREIGN = {
    "d_model": "n_embd",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "d_ff": "n_inner",
    "max_positions": "n_positions",
    "dropout": "resid_pdrop",
    "embedding_dropout": "embd_pdrop",
    "attention_dropout": "attn_pdrop",
    "initial_std": "initializer_range",
    "eps": "layer_norm_epsilon",
}


def _from_hf(config: Foreign) -> Stacks:
    refuse(config, add_cross_attention=False, scale_attn_by_inverse_layer_idx=False, is_causal=True)
    config = renamed(config, _OTHER_NAMES)
    width, num_heads = need(config, "n_embd"), need(config, "n_head")
    if width % num_heads:
        raise CheckpointError(f"config.json n_head: must divide n_embd {width}, got {num_heads}")
    fields = {
        "vocab_size": need(config, "vocab_size"),
        "d_model": width,
        "d_embedding": width,
        "num_layers": need(config, "n_layer"),
        "num_heads": num_heads,
        "d_ff": may(config, "n_inner") or 4 * width,
        "max_positions": need(config, "n_positions"),
        "num_segments": 0,
        "causal": True,
        "order": "pre",
        "embedding_norm": False,
        "attention_scale": None if flag(config, "scale_attn_weights", default=True) else 1.0,
        "dropout": config.get("resid_pdrop", 0.1),
        "embedding_dropout": config.get("embd_pdrop", 0.1),
        "attention_dropout": config.get("attn_pdrop", 0.1),
        "initial_std": config.get("initializer_range", 0.02),
        "position": LearnedConfig(),
        "feedforward": look_up(PLAIN, config, "activation_function", default="gelu_new"),
        "norm": settings(LayerNormConfig, {"eps": config.get("layer_norm_epsilon", 1e-5)}, _FOREIGN),
    }
    return Stacks(decoder=settings(TransformerConfig, fields, _FOREIGN))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    config = decoder(stacks)
    assert isinstance(config.norm, LayerNormConfig)
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": None if config.d_ff == 4 * config.d_model else config.d_ff,
        "n_positions": config.max_positions,
        "activation_function": name_of(config.feedforward, PLAIN),
        "scale_attn_weights": config.attention_scale is None,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout if config.embedding_dropout is None else config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "initializer_range": config.initial_std,
        "layer_norm_epsilon": config.norm.eps,
    }


def _split(tensor: Tensor, config: TransformerConfig) -> Sequence[Tensor]:
    """Query, key and value side by side; matrices of Conv1D are [in, out]."""
    return _turned(tensor).unflatten(0, (3, -1)).unbind(0)


def _join(parts: Sequence[Tensor], config: TransformerConfig) -> Tensor:
    return _turned(torch.cat(list(parts)))


def _turned(tensor: Tensor) -> Tensor:
    return tensor.t() if tensor.ndim == 2 else tensor


def _conv1d(name: str, part: str) -> Fused:
    return Fused(name, (part,), lambda tensor, config: [_turned(tensor)], lambda parts, config: _turned(parts[0]))


def _stds(stacks: Stacks) -> dict[str, float]:
    """Maps into the residual stream are narrower by the square root of their number."""
    config = decoder(stacks)
    std = config.initial_std / (2 * config.num_layers) ** 0.5
    return {"attention.output.weight": std, "feedforward.down.weight": std}


_SMALL = {"vocab_size": 50257, "n_positions": 1024, "bos_token_id": 50256, "eos_token_id": 50256}

FAMILY = Family(
    name="gpt2",
    prefix="transformer",
    keys={
        "decoder.embeddings.tokens": "@wte",
        "decoder.embeddings.position": "@wpe",
        "decoder.blocks.{i}.attention_norm": "@h.{i}.ln_1",
        "decoder.blocks.{i}.attention.query": "@h.{i}.attn.c_attn#query",
        "decoder.blocks.{i}.attention.key": "@h.{i}.attn.c_attn#key",
        "decoder.blocks.{i}.attention.value": "@h.{i}.attn.c_attn#value",
        "decoder.blocks.{i}.attention.output": "@h.{i}.attn.c_proj#output",
        "decoder.blocks.{i}.feedforward_norm": "@h.{i}.ln_2",
        "decoder.blocks.{i}.feedforward.up": "@h.{i}.mlp.c_fc#up",
        "decoder.blocks.{i}.feedforward.down": "@h.{i}.mlp.c_proj#down",
        "decoder.norm": "@ln_f",
    },
    heads=heads("GPT2", lm="LMHeadModel", tied=True, tag="classifier"),
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="GPT2Model",
    fused=(
        Fused("@h.{i}.attn.c_attn", ("query", "key", "value"), _split, _join),
        _conv1d("@h.{i}.attn.c_proj", "output"),
        _conv1d("@h.{i}.mlp.c_fc", "up"),
        _conv1d("@h.{i}.mlp.c_proj", "down"),
    ),
    junk=(".attn.bias", ".attn.masked_bias"),
    stds=_stds,
    presets={
        "gpt2_mini": _SMALL | {"n_embd": 256, "n_layer": 4, "n_head": 4},
        "gpt2": _SMALL | {"n_embd": 768, "n_layer": 12, "n_head": 12},
    },
)
