"""ALBERT: narrow embeddings, one block used many times, and sentence order in place of next sentences.

Paper: ALBERT (arXiv:1909.11942).
Differs: the output of the feed-forward layer has dropout in training, as in the paper's code; transformers has none
there. Both released versions (v2) train without dropout. ``inner_group_num`` is 1 in every released model.
"""

from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.models import Family, Foreign, HeadTable, Stacks
from tunesmith.models._encoder import (
    choice_from_hf,
    classify_from_hf,
    encoder_from_hf,
    encoder_to_hf,
    lm_from_hf,
    pretrain_from_hf,
    tag_from_hf,
)
from tunesmith.models._fields import need
from tunesmith.nn.head.pool import PoolConfig
from tunesmith.nn.head.span import SpanConfig

_LAYER = "@encoder.albert_layer_groups.{i}.albert_layers.0."
_DEFAULTS = {
    "embedding_size": 128,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout_prob": 0.1,
}
_LM = {
    "dense": "predictions.dense",
    "norm": "predictions.LayerNorm",
    "bias": "predictions.bias",
    "table": "predictions.decoder",
}
_SIZES = {"vocab_size": 30000, "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0}


def _with_defaults(config: Foreign) -> dict[str, Any]:
    found = {**_DEFAULTS, **config}
    rate = found["classifier_dropout_prob"]
    return found | {"classifier_dropout": found["hidden_dropout_prob"] if rate is None else rate}


def _from_hf(config: Foreign) -> Stacks:
    config = _with_defaults(config)
    if config.get("inner_group_num", 1) != 1:
        got = config["inner_group_num"]
        raise CheckpointError(f"config.json inner_group_num: only 1 layer in each group is supported, got {got!r}")
    layers, groups = need(config, "num_hidden_layers"), need({"num_hidden_groups": 1, **config}, "num_hidden_groups")
    if layers % groups:
        raise CheckpointError(f"config.json num_hidden_groups: must divide num_hidden_layers {layers}, got {groups}")
    encoder = encoder_from_hf(config).encoder
    assert encoder is not None
    return Stacks(encoder.model_copy(update={"num_stored": groups, "embedding_projection": "always"}))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    assert stacks.encoder is not None
    own = {"embedding_size": stacks.encoder.d_embedding, "num_hidden_groups": stacks.encoder.stored}
    return encoder_to_hf(stacks) | own | {"inner_group_num": 1}


FAMILY = Family(
    name="albert",
    prefix="albert",
    keys={
        "encoder.embeddings.tokens": "@embeddings.word_embeddings",
        "encoder.embeddings.segments": "@embeddings.token_type_embeddings",
        "encoder.embeddings.position": "@embeddings.position_embeddings",
        "encoder.embeddings.norm": "@embeddings.LayerNorm",
        "encoder.embeddings.project": "@encoder.embedding_hidden_mapping_in",
        "encoder.blocks.{i}.attention.query": _LAYER + "attention.query",
        "encoder.blocks.{i}.attention.key": _LAYER + "attention.key",
        "encoder.blocks.{i}.attention.value": _LAYER + "attention.value",
        "encoder.blocks.{i}.attention.output": _LAYER + "attention.dense",
        "encoder.blocks.{i}.attention_norm": _LAYER + "attention.LayerNorm",
        "encoder.blocks.{i}.feedforward.up": _LAYER + "ffn",
        "encoder.blocks.{i}.feedforward.down": _LAYER + "ffn_output",
        "encoder.blocks.{i}.feedforward_norm": _LAYER + "full_layer_layer_norm",
    },
    heads={
        "classify": HeadTable(
            "AlbertForSequenceClassification",
            {"dense": "@pooler", "output": "classifier"},
            lambda config: classify_from_hf(_with_defaults(config), hidden="tanh", dropout_before_hidden=False),
        ),
        "tag": HeadTable(
            "AlbertForTokenClassification", {"output": "classifier"}, lambda config: tag_from_hf(_with_defaults(config))
        ),
        "lm": HeadTable("AlbertForMaskedLM", _LM, lambda config: lm_from_hf(_with_defaults(config))),
        "pretrain": HeadTable(
            "AlbertForPreTraining",
            {f"lm.{ours}": theirs for ours, theirs in _LM.items()}
            | {"pool": "@pooler", "pair": "sop_classifier.classifier"},
            lambda config: pretrain_from_hf(
                _with_defaults(config), dropout=_with_defaults(config)["classifier_dropout"]
            ),
        ),
        "span": HeadTable("AlbertForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig()),
        "choice": HeadTable(
            "AlbertForMultipleChoice",
            {"dense": "@pooler", "output": "classifier"},
            lambda config: choice_from_hf(_with_defaults(config), hidden="tanh"),
        ),
        "pool": HeadTable("AlbertModel", {"dense": "@pooler"}, lambda config: PoolConfig()),
    },
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="AlbertModel",
    head_dropout="classifier_dropout_prob",
    presets={
        "albert_mini": _SIZES
        | _DEFAULTS
        | {
            "embedding_size": 64,
            "hidden_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
        },
        "albert_base": _SIZES
        | _DEFAULTS
        | {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    },
)
