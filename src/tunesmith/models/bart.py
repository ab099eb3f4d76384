"""BART: encoder-decoder with post-norm and learned positions; denoises, summarises, translates.

Paper: BART (arXiv:1910.13461).
"""

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, Fused, HeadTable, Stacks
from tunesmith.models._activations import PLAIN, name_of
from tunesmith.models._encoder import classify_from_hf
from tunesmith.models._encoder_decoder import one_table, untied
from tunesmith.models._fields import look_up, need, refuse, settings
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.span import SpanConfig
from tunesmith.nn.norm.layer_norm import LayerNormConfig
from tunesmith.nn.position.learned import LearnedConfig
from tunesmith.nn.transformer import TransformerConfig

_OFFSET = 2  # rows of the position tables before the first position; padding is counted like any token
_BLOCK = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "feedforward.up": "fc1",
    "feedforward.down": "fc2",
    "feedforward_norm": "final_layer_norm",
}
_CROSS = {
    "cross_attention.query": "encoder_attn.q_proj",
    "cross_attention.key": "encoder_attn.k_proj",
    "cross_attention.value": "encoder_attn.v_proj",
    "cross_attention.output": "encoder_attn.out_proj",
    "cross_norm": "encoder_attn_layer_norm",
}


def _keys(stack: str, block: dict[str, str]) -> dict[str, str]:
    return {
        f"{stack}.embeddings.position": f"@{stack}.embed_positions",
        f"{stack}.embeddings.norm": f"@{stack}.layernorm_embedding",
        **{f"{stack}.blocks.{{i}}.{ours}": f"@{stack}.layers.{{i}}.{theirs}" for ours, theirs in block.items()},
    }


def _stack_from_hf(config: Foreign, stack: Literal["encoder", "decoder"]) -> TransformerConfig:
    width, heads = need(config, "d_model"), need(config, f"{stack}_attention_heads")
    if width % heads:
        raise CheckpointError(f"config.json {stack}_attention_heads: must divide d_model {width}, got {heads}")
    fields = {
        "vocab_size": need(config, "vocab_size"),
        "d_model": width,
        "d_embedding": width,
        "num_layers": need(config, f"{stack}_layers"),
        "num_heads": heads,
        "d_ff": need(config, f"{stack}_ffn_dim"),
        "max_positions": need(config, "max_position_embeddings"),
        "num_segments": 0,
        "causal": stack == "decoder",
        "cross_attention": stack == "decoder",
        "embedding_scale": width**0.5 if config.get("scale_embedding") else 1.0,
        "dropout": config.get("dropout", 0.1),
        "attention_dropout": config.get("attention_dropout", 0.0),
        "feedforward_dropout": config.get("activation_dropout", 0.0),
        "initial_std": config.get("init_std", 0.02),
        "position": LearnedConfig(offset=_OFFSET),
        "feedforward": look_up(PLAIN, config, "activation_function"),
        "norm": LayerNormConfig(eps=1e-5),
    }
    names = {
        "num_layers": f"{stack}_layers",
        "num_heads": f"{stack}_attention_heads",
        "d_ff": f"{stack}_ffn_dim",
        "max_positions": "max_position_embeddings",
        "feedforward_dropout": "activation_dropout",
        "initial_std": "init_std",
    }
    return settings(TransformerConfig, fields, names)


def _from_hf(config: Foreign) -> Stacks:
    refuse(
        config,
        is_decoder=False,
        is_encoder_decoder=True,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        normalize_before=False,
        normalize_embedding=True,
        add_final_layer_norm=False,
        add_bias_logits=False,
        static_position_embeddings=False,
    )
    return Stacks(_stack_from_hf(config, "encoder"), _stack_from_hf(config, "decoder"))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for stack, config in (("encoder", stacks.encoder), ("decoder", stacks.decoder)):
        assert config is not None
        fields |= {
            "vocab_size": config.vocab_size,
            "d_model": config.d_model,
            f"{stack}_layers": config.num_layers,
            f"{stack}_attention_heads": config.num_heads,
            f"{stack}_ffn_dim": config.d_ff,
            "activation_function": name_of(config.feedforward, PLAIN),
            "max_position_embeddings": config.max_positions,
            "scale_embedding": config.embedding_scale != 1.0,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "activation_dropout": config.feedforward_dropout,
            "init_std": config.initial_std,
        }
    return fields


def _settle(tensors: Mapping[str, Tensor], config: Foreign) -> dict[str, Any]:
    """Old files have no start token; transformers' default is </s>. A head that differs from the table is untied."""
    flag, differs = config.get("tie_word_embeddings", True), untied(tensors)
    return {
        "tie_word_embeddings": differs is None or not (differs or flag is False),
        "decoder_start_token_id": config.get("decoder_start_token_id", 2),
    }


def _clean(tensors: dict[str, Tensor], config: Foreign) -> dict[str, Tensor]:
    tensors = one_table(tensors, config)
    if (config.get("architectures") or [""])[0] == "BartForConditionalGeneration" and config.get("vocab_size"):
        table = next((tensor for name, tensor in tensors.items() if name.endswith("shared.weight")), None)
        if table is not None:  # transformers does not miss it either
            tensors.setdefault("final_logits_bias", table.new_zeros(1, len(table)))
    return tensors


_SMALL = {
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    "is_encoder_decoder": True,
}

FAMILY = Family(
    name="bart",
    prefix="model",
    keys={"encoder.embeddings.tokens": "@shared", **_keys("encoder", _BLOCK), **_keys("decoder", _BLOCK | _CROSS)},
    heads={
        "lm": HeadTable(
            "BartForConditionalGeneration",
            {"bias": "final_logits_bias#bias", "table": "lm_head"},
            lambda config: LMConfig(
                activation=None,
                bias="fixed",
                table="own" if config.get("tie_word_embeddings") is False else "tied",
            ),
        ),
        "classify": HeadTable(
            "BartForSequenceClassification",
            {"dense": "classification_head.dense", "output": "classification_head.out_proj"},
            lambda config: classify_from_hf(
                {"classifier_dropout": 0.0, **config}, hidden="tanh", dropout_before_hidden=True
            ).model_copy(update={"pooling": "last"}),
        ),
        "span": HeadTable("BartForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig()),
    },
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="BartModel",
    fused=(
        Fused(
            "final_logits_bias",
            ("bias",),
            split=lambda tensor, stack: [tensor.reshape(stack.vocab_size)],
            join=lambda parts, stack: parts[0][None],
        ),
    ),
    junk=("encoder.version", "decoder.version"),
    settle=_settle,
    clean=_clean,
    repeat={
        "@encoder.embed_tokens.weight": "@shared.weight",
        "@decoder.embed_tokens.weight": "@shared.weight",
    },
    presets={
        "bart_mini": _SMALL
        | {
            "d_model": 256,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 1024,
            "decoder_ffn_dim": 1024,
        },
        "bart_base": _SMALL
        | {
            "d_model": 768,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
        "bart_large": _SMALL
        | {
            "d_model": 1024,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 16,
            "decoder_attention_heads": 16,
            "encoder_ffn_dim": 4096,
            "decoder_ffn_dim": 4096,
        },
    },
)
