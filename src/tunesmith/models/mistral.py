"""Mistral: LLaMA's decoder in which a token sees a window of those before it.

Paper: Mistral 7B (arXiv:2310.06825).
"""

from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.models import Family, Foreign, Stacks
from tunesmith.models._decoder import JUNK, KEYS, decoder, decoder_from_hf, decoder_to_hf, heads, window_of
from tunesmith.nn.transformer import LayerConfig


def _from_hf(config: Foreign) -> Stacks:
    window = window_of(config)
    expected = "full_attention" if window is None else "sliding_attention"
    if any(kind != expected for kind in config.get("layer_types") or ()):  # transformers' Mistral does not read them
        raise CheckpointError(
            f"config.json layer_types: must be {expected} for all layers, as sliding_window says, "
            f"got {config['layer_types']!r}"
        )
    return decoder_from_hf({"num_key_value_heads": 8, **config}, layers=(LayerConfig(window=window),))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    window = decoder(stacks).layers[0].window
    return decoder_to_hf(stacks) | {"sliding_window": None if window is None else window + 1}


FAMILY = Family(
    name="mistral",
    prefix="model",
    keys=KEYS,
    heads=heads("Mistral"),
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="MistralModel",
    junk=JUNK,
    presets={
        "mistral_mini": {
            "vocab_size": 32000,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "intermediate_size": 896,
            "max_position_embeddings": 4096,
            "sliding_window": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    },
)
