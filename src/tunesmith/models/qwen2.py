"""Qwen2: LLaMA's decoder with biases of queries, keys and values, and a window in its upper layers if asked for.

Paper: Qwen2 Technical Report (arXiv:2407.10671).
"""

from typing import Any

from tunesmith.models import Family, Foreign, Stacks
from tunesmith.models._decoder import JUNK, KEYS, decoder_from_hf, decoder_to_hf, heads, layers_from_hf, layers_to_hf


def _from_hf(config: Foreign) -> Stacks:
    return decoder_from_hf({"num_key_value_heads": 32, **config}, biases="qkv", layers=layers_from_hf(config))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    return decoder_to_hf(stacks) | layers_to_hf(stacks)


FAMILY = Family(
    name="qwen2",
    prefix="model",
    keys=KEYS,
    heads=heads("Qwen2", span_prefix="transformer"),
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="Qwen2Model",
    junk=JUNK,
    presets={
        "qwen2_mini": {
            "vocab_size": 32000,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "intermediate_size": 704,
            "max_position_embeddings": 4096,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": True,
        },
    },
)
