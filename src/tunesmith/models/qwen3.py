"""Qwen3: LLaMA's decoder with normalised queries and keys of each head, whose width is free of the model's.

Paper: Qwen3 Technical Report (arXiv:2505.09388).
"""

from typing import Any

from tunesmith.models import Family, Foreign, Stacks
from tunesmith.models._decoder import (
    JUNK,
    KEYS,
    decoder,
    decoder_from_hf,
    decoder_to_hf,
    heads,
    layers_from_hf,
    layers_to_hf,
)
from tunesmith.models._fields import flag


def _from_hf(config: Foreign) -> Stacks:
    return decoder_from_hf(
        {"num_key_value_heads": 32, "head_dim": 128, **config},
        biases="all" if flag(config, "attention_bias") else "none",
        head_norm=True,
        layers=layers_from_hf(config),
    )


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    biases = decoder(stacks).biases == "all"
    return decoder_to_hf(stacks) | layers_to_hf(stacks) | {"attention_bias": biases}


FAMILY = Family(
    name="qwen3",
    prefix="model",
    keys=KEYS
    | {
        "decoder.blocks.{i}.attention.query_norm": "@layers.{i}.self_attn.q_norm",
        "decoder.blocks.{i}.attention.key_norm": "@layers.{i}.self_attn.k_norm",
    },
    heads=heads("Qwen3", span_prefix="transformer"),
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="Qwen3Model",
    junk=JUNK,
    presets={
        "qwen3_mini": {
            "vocab_size": 32000,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "intermediate_size": 768,
            "max_position_embeddings": 4096,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": True,
        },
    },
)
