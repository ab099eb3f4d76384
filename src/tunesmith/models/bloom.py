"""BLOOM: decoder with ALiBi in place of positions, normalised embeddings and pre-norm; one fused matrix of attention.

Paper: BLOOM (arXiv:2211.05100).
"""

from collections.abc import Sequence
from typing import Any

import torch

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, Fused, Stacks
from tunesmith.models._decoder import decoder, heads
from tunesmith.models._fields import flag, need, refuse, renamed, settings
from tunesmith.nn.feedforward.gelu import GELUConfig
from tunesmith.nn.norm.layer_norm import LayerNormConfig
from tunesmith.nn.position.alibi import ALiBiConfig
from tunesmith.nn.transformer import TransformerConfig

_OTHER_NAMES = {"n_embed": "hidden_size", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}
_FOREIGN = {
    "d_model": "hidden_size",
    "d_ff": "hidden_size",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "max_positions": "seq_length",
    "dropout": "hidden_dropout",
    "initial_std": "initializer_range",
    "eps": "layer_norm_epsilon",
}


def _from_hf(config: Foreign) -> Stacks:
    refuse(config, apply_residual_connection_post_layernorm=False, is_causal=True)
    if flag(config, "slow_but_exact") and need({"pretraining_tp": 1, **config}, "pretraining_tp") > 1:
        raise CheckpointError("config.json slow_but_exact: leaves out biases beside pretraining_tp: set it to false")
    config = renamed(config, _OTHER_NAMES)
    width, num_heads = need(config, "hidden_size"), need(config, "n_head")
    if width % num_heads:
        raise CheckpointError(f"config.json n_head: must divide hidden_size {width}, got {num_heads}")
    fields = {
        "vocab_size": need(config, "vocab_size"),
        "d_model": width,
        "d_embedding": width,
        "num_layers": need(config, "n_layer"),
        "num_heads": num_heads,
        "d_ff": 4 * width,
        "max_positions": need({"seq_length": 2048, **config}, "seq_length"),
        "num_segments": 0,
        "causal": True,
        "order": "pre",
        "dropout": config.get("hidden_dropout", 0.0),
        "embedding_dropout": 0.0,
        "attention_dropout": config.get("attention_dropout", 0.0),
        "initial_std": config.get("initializer_range", 0.02),
        "position": ALiBiConfig(),
        "feedforward": GELUConfig(approximate="tanh"),
        "norm": settings(LayerNormConfig, {"eps": config.get("layer_norm_epsilon", 1e-5)}, _FOREIGN),
    }
    return Stacks(decoder=settings(TransformerConfig, fields, _FOREIGN))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    config = decoder(stacks)
    assert isinstance(config.norm, LayerNormConfig)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "seq_length": config.max_positions,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.initial_std,
        "layer_norm_epsilon": config.norm.eps,
    }


def _split(tensor: Tensor, config: TransformerConfig) -> Sequence[Tensor]:
    """Rows are [heads, 3, d_head]: query, key and value of one head stand together."""
    parts = tensor.unflatten(0, (config.num_heads, 3, -1)).unbind(1)
    return [part.flatten(0, 1) for part in parts]


def _join(parts: Sequence[Tensor], config: TransformerConfig) -> Tensor:
    return torch.stack([part.unflatten(0, (config.num_heads, -1)) for part in parts], 1).flatten(0, 2)


FAMILY = Family(
    name="bloom",
    prefix="transformer",
    keys={
        "decoder.embeddings.tokens": "@word_embeddings",
        "decoder.embeddings.norm": "@word_embeddings_layernorm",
        "decoder.blocks.{i}.attention_norm": "@h.{i}.input_layernorm",
        "decoder.blocks.{i}.attention.query": "@h.{i}.self_attention.query_key_value#query",
        "decoder.blocks.{i}.attention.key": "@h.{i}.self_attention.query_key_value#key",
        "decoder.blocks.{i}.attention.value": "@h.{i}.self_attention.query_key_value#value",
        "decoder.blocks.{i}.attention.output": "@h.{i}.self_attention.dense",
        "decoder.blocks.{i}.feedforward_norm": "@h.{i}.post_attention_layernorm",
        "decoder.blocks.{i}.feedforward.up": "@h.{i}.mlp.dense_h_to_4h",
        "decoder.blocks.{i}.feedforward.down": "@h.{i}.mlp.dense_4h_to_h",
        "decoder.norm": "@ln_f",
    },
    heads=heads("Bloom", tied=True, tag="classifier", dropout=0.0),
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="BloomModel",
    fused=(Fused("@h.{i}.self_attention.query_key_value", ("query", "key", "value"), _split, _join),),
    presets={
        "bloom_mini": {
            "vocab_size": 32000,
            "hidden_size": 256,
            "n_layer": 4,
            "n_head": 8,
            "seq_length": 2048,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 3,
        },
    },
)
