"""ELECTRA: BERT's encoder with narrower embeddings, projected; heads with GELU; no pooler.

Paper: ELECTRA (arXiv:2003.10555).
"""

from typing import Any

from tunesmith.models import Family, HeadTable, Stacks
from tunesmith.models._encoder import KEYS, classify_from_hf, encoder_from_hf, encoder_to_hf, lm_from_hf, tag_from_hf


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    assert stacks.encoder is not None
    return encoder_to_hf(stacks) | {"embedding_size": stacks.encoder.d_embedding}


FAMILY = Family(
    name="electra",
    prefix="electra",
    keys=KEYS | {"encoder.embeddings.project": "@embeddings_project"},
    heads={
        "classify": HeadTable(
            "ElectraForSequenceClassification",
            {"dense": "classifier.dense", "output": "classifier.out_proj"},
            lambda config: classify_from_hf(config, hidden="gelu", dropout_before_hidden=True),
        ),
        "tag": HeadTable("ElectraForTokenClassification", {"output": "classifier"}, tag_from_hf),
        "lm": HeadTable(
            "ElectraForMaskedLM",
            {
                "dense": "generator_predictions.dense",
                "norm": "generator_predictions.LayerNorm",
                "bias": "generator_lm_head.bias",
                "table": "generator_lm_head",
            },
            lambda config: lm_from_hf(config, activation="gelu"),
        ),
    },
    from_hf=encoder_from_hf,
    to_hf=_to_hf,
    bare="ElectraModel",
    presets={
        "electra_small": {
            "vocab_size": 30522,
            "embedding_size": 128,
            "hidden_size": 256,
            "num_hidden_layers": 12,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "pad_token_id": 0,
        },
    },
)
