"""What BERT, RoBERTa and ELECTRA share: the keys of their encoders and the fields of config.json."""

from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.models import Foreign, Stacks
from tunesmith.models._activations import ACTIVATION, PLAIN, name_of
from tunesmith.models._fields import look_up, need, num_labels, problem, settings
from tunesmith.nn.head._activation import Activation
from tunesmith.nn.head.choice import ChoiceConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.pretrain import PretrainConfig
from tunesmith.nn.head.tag import TagConfig
from tunesmith.nn.norm.layer_norm import LayerNormConfig
from tunesmith.nn.position.learned import LearnedConfig
from tunesmith.nn.transformer import TransformerConfig

KEYS = {
    "encoder.embeddings.tokens": "@embeddings.word_embeddings",
    "encoder.embeddings.segments": "@embeddings.token_type_embeddings",
    "encoder.embeddings.position": "@embeddings.position_embeddings",
    "encoder.embeddings.norm": "@embeddings.LayerNorm",
    "encoder.blocks.{i}.attention.query": "@encoder.layer.{i}.attention.self.query",
    "encoder.blocks.{i}.attention.key": "@encoder.layer.{i}.attention.self.key",
    "encoder.blocks.{i}.attention.value": "@encoder.layer.{i}.attention.self.value",
    "encoder.blocks.{i}.attention.output": "@encoder.layer.{i}.attention.output.dense",
    "encoder.blocks.{i}.attention_norm": "@encoder.layer.{i}.attention.output.LayerNorm",
    "encoder.blocks.{i}.feedforward.up": "@encoder.layer.{i}.intermediate.dense",
    "encoder.blocks.{i}.feedforward.down": "@encoder.layer.{i}.output.dense",
    "encoder.blocks.{i}.feedforward_norm": "@encoder.layer.{i}.output.LayerNorm",
}


def encoder_from_hf(config: Foreign, *, offset: int = 0) -> Stacks:
    """Encoder settings from config.json.

    Args:
        config: The parsed file.
        offset: First row of the position table that a token can have.

    Raises:
        CheckpointError: A field is missing, has a wrong type, is out of range, or asks for what this family has not.
    """
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise CheckpointError(f"config.json position_embedding_type: only absolute is supported, got {kind!r}")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise CheckpointError("config.json is_decoder: this family is loaded as an encoder only: set it to false")
    width, heads = need(config, "hidden_size"), need(config, "num_attention_heads")
    if width % heads:
        raise CheckpointError(f"config.json num_attention_heads: must divide hidden_size {width}, got {heads}")
    encoder = settings(
        TransformerConfig,
        {
            "vocab_size": need(config, "vocab_size"),
            "d_model": width,
            "d_embedding": config.get("embedding_size") or width,
            "num_layers": need(config, "num_hidden_layers"),
            "num_heads": heads,
            "d_ff": need(config, "intermediate_size"),
            "max_positions": need(config, "max_position_embeddings") - offset,
            "num_segments": config.get("type_vocab_size", 2),
            "dropout": config.get("hidden_dropout_prob", 0.1),
            "attention_dropout": config.get("attention_probs_dropout_prob", 0.1),
            "initial_std": config.get("initializer_range", 0.02),
            "position": LearnedConfig(offset=offset),
            "feedforward": look_up(PLAIN, config, "hidden_act"),
            "norm": settings(LayerNormConfig, {"eps": config.get("layer_norm_eps", 1e-12)}),
        },
    )
    return Stacks(encoder=encoder)


def encoder_to_hf(stacks: Stacks) -> dict[str, Any]:
    """Fields of config.json from the encoder settings."""
    config = stacks.encoder
    assert config is not None
    assert isinstance(config.norm, LayerNormConfig)
    assert isinstance(config.position, LearnedConfig)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_ff,
        "hidden_act": name_of(config.feedforward, PLAIN),
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_positions + config.position.offset,
        "type_vocab_size": config.num_segments,
        "initializer_range": config.initial_std,
        "layer_norm_eps": config.norm.eps,
    }


def classify_from_hf(config: Foreign, *, hidden: Activation, dropout_before_hidden: bool) -> ClassifyConfig:
    """Settings of a classification head; RoBERTa and ELECTRA drop before the hidden layer as well."""
    rate = classifier_dropout(config)
    return settings(
        ClassifyConfig,
        {
            "num_labels": num_labels(config),
            "problem": problem(config),
            "hidden": hidden,
            "hidden_dropout": rate if dropout_before_hidden else 0.0,
            "dropout": rate,
        },
    )


def tag_from_hf(config: Foreign) -> TagConfig:
    """Settings of a tagging head."""
    return settings(TagConfig, {"num_labels": num_labels(config), "dropout": classifier_dropout(config)})


def lm_from_hf(config: Foreign, *, activation: Activation | None = None) -> LMConfig:
    """Settings of a masked-language-model head."""
    return LMConfig(
        activation=look_up(ACTIVATION, config, "hidden_act") if activation is None else activation,
        table="tied" if config.get("tie_word_embeddings", True) else "own",
    )


def pretrain_from_hf(config: Foreign, *, dropout: float = 0.0) -> PretrainConfig:
    """Settings of the head of BERT's and ALBERT's pretraining; ALBERT drops from the pooled vector."""
    lm = lm_from_hf(config)
    return settings(PretrainConfig, {"activation": lm.activation, "table": lm.table, "dropout": dropout})


def choice_from_hf(
    config: Foreign, *, hidden: Activation, rate: object = None, hidden_dropout: float = 0.0
) -> ChoiceConfig:
    """Settings of a multiple-choice head with a hidden layer; ``rate`` is its dropout, where it has one of its own."""
    rate = classifier_dropout(config) if rate is None else rate
    return settings(ChoiceConfig, {"hidden": hidden, "hidden_dropout": hidden_dropout, "dropout": rate})


def classifier_dropout(config: Foreign) -> object:
    """``classifier_dropout``, or the dropout of the hidden states where it is not set; the head checks it."""
    rate = config.get("classifier_dropout")
    return config.get("hidden_dropout_prob", 0.1) if rate is None else rate
