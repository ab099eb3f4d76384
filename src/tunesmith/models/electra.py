"""ELECTRA: BERT's encoder with narrower embeddings, projected; heads with GELU; no pooler.

Paper: ELECTRA (arXiv:2003.10555).
"""

from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.models import Family, Foreign, HeadTable, Stacks
from tunesmith.models._activations import ACTIVATION
from tunesmith.models._encoder import (
    KEYS,
    choice_from_hf,
    classify_from_hf,
    encoder_from_hf,
    encoder_to_hf,
    lm_from_hf,
    tag_from_hf,
)
from tunesmith.models._fields import look_up
from tunesmith.nn.head.choice import ChoiceConfig
from tunesmith.nn.head.rtd import RTDConfig
from tunesmith.nn.head.span import SpanConfig


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    assert stacks.encoder is not None
    return encoder_to_hf(stacks) | {"embedding_size": stacks.encoder.d_embedding}


def _choice(config: Foreign) -> ChoiceConfig:
    for field, only in (("summary_type", "first"), ("summary_use_proj", True)):
        if config.get(field, only) != only:
            raise CheckpointError(f"config.json {field}: only {only!r} is supported, got {config[field]!r}")
    activation = look_up(ACTIVATION, config, "summary_activation")
    return choice_from_hf(config, hidden=activation, rate=config.get("summary_last_dropout", 0.1))


_SIZES = {
    "vocab_size": 30522,
    "num_hidden_layers": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}

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
        "rtd": HeadTable(
            "ElectraForPreTraining",
            {"dense": "discriminator_predictions.dense", "output": "discriminator_predictions.dense_prediction"},
            lambda config: RTDConfig(activation=look_up(ACTIVATION, config, "hidden_act")),
        ),
        "span": HeadTable("ElectraForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig()),
        "choice": HeadTable(
            "ElectraForMultipleChoice", {"dense": "sequence_summary.summary", "output": "classifier"}, _choice
        ),
    },
    from_hf=encoder_from_hf,
    to_hf=_to_hf,
    bare="ElectraModel",
    presets={
        "electra_small": _SIZES
        | {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
        "electra_base": _SIZES
        | {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    },
)
