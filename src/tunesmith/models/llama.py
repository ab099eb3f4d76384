"""LLaMA: decoder with RoPE, RMSNorm before each layer, SwiGLU, grouped queries; no biases unless config.json asks.

Papers: LLaMA (arXiv:2302.13971); Llama 2 (arXiv:2307.09288); Llama 3 (arXiv:2407.21783).
"""

from typing import Any

from tunesmith.models import Family, Foreign, Stacks
from tunesmith.models._decoder import JUNK, KEYS, decoder, decoder_from_hf, decoder_to_hf, heads
from tunesmith.models._fields import flag


def _from_hf(config: Foreign) -> Stacks:
    biases = "all" if flag(config, "attention_bias") else "none"
    return decoder_from_hf(config, biases=biases, feedforward_bias=flag(config, "mlp_bias"))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    config = decoder(stacks)
    return decoder_to_hf(stacks) | {"attention_bias": config.biases == "all", "mlp_bias": config.feedforward_bias}


_SIZES = {"vocab_size": 32000, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2}

FAMILY = Family(
    name="llama",
    prefix="model",
    keys=KEYS,
    heads=heads("Llama", span_prefix="transformer"),
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="LlamaModel",
    junk=JUNK,
    presets={
        "llama_mini": _SIZES
        | {
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "intermediate_size": 768,
        },
        "llama_7b": _SIZES
        | {
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "intermediate_size": 11008,
        },
    },
)
