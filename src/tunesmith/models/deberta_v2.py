"""DeBERTa v2 and v3: content and position attend to each other; v3 finds replaced tokens.

Paper: DeBERTa (arXiv:2006.03654); DeBERTaV3 (arXiv:2111.09543).
Differs: transformers gives the language-model head of Microsoft's files (``lm_predictions``) fresh weights unless
config.json says ``legacy: false``; here the names in the file decide, and ``legacy`` is written to match. The head
of replaced token detection (``mask_predictions``) has no class in transformers: it is saved under the name of
Microsoft's. The enhanced mask decoder's tables (``position_embeddings`` of v3) are kept aside: transformers has none.
"""

from collections.abc import Mapping
from typing import Any

from tunesmith.base.errors import CheckpointError
from tunesmith.base.shapes import Tensor
from tunesmith.models import Family, Foreign, HeadTable, Stacks
from tunesmith.models._activations import ACTIVATION
from tunesmith.models._encoder import classify_from_hf, encoder_from_hf, encoder_to_hf, lm_from_hf, tag_from_hf
from tunesmith.models._fields import look_up, need, settings
from tunesmith.nn.convolution import ConvolutionConfig
from tunesmith.nn.head.choice import ChoiceConfig
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.rtd import RTDConfig
from tunesmith.nn.head.span import SpanConfig
from tunesmith.nn.position.disentangled import DisentangledConfig
from tunesmith.nn.position.learned import LearnedConfig

_LAYER = "@encoder.layer.{i}."
_DEFAULTS = {"type_vocab_size": 0, "layer_norm_eps": 1e-7, "hidden_act": "gelu"}
_TERMS = {frozenset(): "none", frozenset({"c2p"}): "c2p", frozenset({"p2c"}): "p2c", frozenset({"c2p", "p2c"}): "both"}
_POOLED = {"dense": "pooler.dense", "output": "classifier"}
_V3 = {
    **_DEFAULTS,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "max_relative_positions": 512,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "legacy": False,
    "pad_token_id": 0,
}


def _terms(config: Foreign) -> str:
    given = config.get("pos_att_type") or []
    given = [part.strip() for part in given.lower().split("|")] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(part, str) for part in given):
        raise CheckpointError(f"config.json pos_att_type: must be a list of c2p and p2c, got {given!r}")
    found = _TERMS.get(frozenset(given))
    if found is None:
        raise CheckpointError(f"config.json pos_att_type: only c2p and p2c are supported, got {given!r}")
    return found


def _position(config: Foreign) -> DisentangledConfig:
    buckets, longest = config.get("position_buckets", -1), config.get("max_relative_positions", -1)
    norms = [part.strip() for part in str(config.get("norm_rel_ebd", "none")).lower().split("|")]
    if not set(norms) <= {"none", "layer_norm"}:
        raise CheckpointError(f"config.json norm_rel_ebd: must be layer_norm or none, got {config['norm_rel_ebd']!r}")
    fields = {
        "num_buckets": max(buckets, 0) if isinstance(buckets, int) else buckets,
        "max_distance": need(config, "max_position_embeddings")
        if isinstance(longest, int) and longest < 1
        else longest,
        "terms": _terms(config) if config.get("relative_attention") else "none",
        "projections": "shared" if config.get("share_att_key") else "own",
        "absolute": "learned" if config.get("position_biased_input", True) else "none",
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "norm": "layer_norm" in norms,
        "eps": config["layer_norm_eps"],
    }
    names = {"num_buckets": "position_buckets", "max_distance": "max_relative_positions"}
    return settings(DisentangledConfig, fields, names=names)


def _convolution(config: Foreign) -> ConvolutionConfig | None:
    if not config.get("conv_kernel_size"):
        return None
    fields = {
        "kernel": config["conv_kernel_size"],
        "groups": config.get("conv_groups", 1),
        "activation": look_up(ACTIVATION, {"conv_act": "tanh", **config}, "conv_act"),
    }
    names = {"kernel": "conv_kernel_size", "groups": "conv_groups"}
    found = settings(ConvolutionConfig, fields, names=names)
    if need(config, "hidden_size") % found.groups:
        raise CheckpointError(f"config.json conv_groups: must divide hidden_size, got {found.groups}")
    return found


def _from_hf(config: Foreign) -> Stacks:
    config = {**_DEFAULTS, **config}
    encoder = encoder_from_hf(config).encoder
    assert encoder is not None
    if config.get("attention_head_size", encoder.head_width) != encoder.head_width:
        got = config["attention_head_size"]
        raise CheckpointError(f"config.json attention_head_size: must be {encoder.head_width}, got {got!r}")
    position = _position(config)
    # transformers divides by the square root of (1 + number of terms) even where relative_attention is off
    scale = position.model_copy(update={"terms": _terms(config)}).scale(encoder.head_width)
    update = {
        "position": position,
        "convolution": _convolution(config),
        "embedding_projection": "first",
        "attention_scale": None if scale == position.scale(encoder.head_width) else scale,
    }
    return Stacks(encoder.model_copy(update=update))


def _to_hf(stacks: Stacks) -> dict[str, Any]:
    config = stacks.encoder
    assert config is not None
    position = config.position
    assert isinstance(position, DisentangledConfig)
    own = {"embedding_size": config.d_embedding, "position_biased_input": position.absolute == "learned"}
    if position.terms != "none":
        own |= {
            "relative_attention": True,
            "pos_att_type": sorted(next(kinds for kinds, name in _TERMS.items() if name == position.terms)),
            "position_buckets": position.num_buckets or -1,
            "max_relative_positions": position.max_distance,
            "share_att_key": position.projections == "shared",
            "norm_rel_ebd": "layer_norm" if position.norm else "none",
        }
    if config.convolution is not None:
        own |= {"conv_kernel_size": config.convolution.kernel, "conv_groups": config.convolution.groups}
        own["conv_act"] = next(name for name, ours in ACTIVATION.items() if ours == config.convolution.activation)
    plain = config.model_copy(update={"position": LearnedConfig()})
    return encoder_to_hf(Stacks(plain)) | own


def _pooled(config: Foreign) -> dict[str, Any]:
    """The hidden layer of the heads that read the first token, in classify_from_hf's words."""
    width = config.get("pooler_hidden_size", config.get("hidden_size"))
    if width != config.get("hidden_size"):
        raise CheckpointError(f"config.json pooler_hidden_size: must be hidden_size, got {width!r}")
    rate = config.get("cls_dropout")
    return {
        "hidden": look_up(ACTIVATION, config, "pooler_hidden_act"),
        "hidden_dropout": config.get("pooler_dropout", 0.0),
        "dropout": config.get("hidden_dropout_prob", 0.1) if rate is None else rate,
    }


def _classify(config: Foreign) -> ClassifyConfig:
    plain = classify_from_hf(config, hidden="gelu", dropout_before_hidden=False)
    return settings(ClassifyConfig, {**dict(plain), **_pooled(config)})


def _choice(config: Foreign) -> ChoiceConfig:
    return settings(ChoiceConfig, _pooled(config))


def _lm(config: Foreign) -> LMConfig:
    if config.get("legacy", True):
        return lm_from_hf(config)
    if config.get("embedding_size", config.get("hidden_size")) != config.get("hidden_size"):
        raise CheckpointError("config.json legacy: false needs an embedding_size equal to hidden_size")
    return lm_from_hf({**config, "tie_word_embeddings": True})  # there the output is the token table itself


def _renamed(config: Foreign) -> dict[str, str]:
    """Microsoft's names of the language-model head, in place of transformers' own."""
    if config.get("legacy", True):
        return {}
    return {
        "cls.predictions.transform.dense": "lm_predictions.lm_head.dense",
        "cls.predictions.transform.LayerNorm": "lm_predictions.lm_head.LayerNorm",
        "cls.predictions.bias": "lm_predictions.lm_head.bias",
    }


def _settle(names: Mapping[str, Tensor], config: Foreign) -> dict[str, Any]:
    theirs = any(name.startswith("lm_predictions.") for name in names)
    ours = any(name.startswith("cls.predictions.") for name in names)
    return {"legacy": ours} if theirs != ours else {}


FAMILY = Family(
    name="deberta-v2",
    prefix="deberta",
    keys={
        "encoder.embeddings.tokens": "@embeddings.word_embeddings",
        "encoder.embeddings.segments": "@embeddings.token_type_embeddings",
        "encoder.embeddings.position.absolute": "@embeddings.position_embeddings",
        "encoder.embeddings.position.norm": "@encoder.LayerNorm",
        "encoder.embeddings.position": "@encoder.rel_embeddings",
        "encoder.embeddings.norm": "@embeddings.LayerNorm",
        "encoder.embeddings.project": "@embeddings.embed_proj",
        "encoder.convolution.map": "@encoder.conv.conv",
        "encoder.convolution.norm": "@encoder.conv.LayerNorm",
        "encoder.blocks.{i}.attention.query": _LAYER + "attention.self.query_proj",
        "encoder.blocks.{i}.attention.key": _LAYER + "attention.self.key_proj",
        "encoder.blocks.{i}.attention.value": _LAYER + "attention.self.value_proj",
        "encoder.blocks.{i}.attention.position_query": _LAYER + "attention.self.pos_query_proj",
        "encoder.blocks.{i}.attention.position_key": _LAYER + "attention.self.pos_key_proj",
        "encoder.blocks.{i}.attention.output": _LAYER + "attention.output.dense",
        "encoder.blocks.{i}.attention_norm": _LAYER + "attention.output.LayerNorm",
        "encoder.blocks.{i}.feedforward.up": _LAYER + "intermediate.dense",
        "encoder.blocks.{i}.feedforward.down": _LAYER + "output.dense",
        "encoder.blocks.{i}.feedforward_norm": _LAYER + "output.LayerNorm",
    },
    heads={
        "classify": HeadTable("DebertaV2ForSequenceClassification", _POOLED, _classify),
        "tag": HeadTable(
            "DebertaV2ForTokenClassification",
            {"output": "classifier"},
            lambda config: tag_from_hf({**config, "classifier_dropout": None}),
        ),
        "lm": HeadTable(
            "DebertaV2ForMaskedLM",
            {
                "dense": "cls.predictions.transform.dense",
                "norm": "cls.predictions.transform.LayerNorm",
                "bias": "cls.predictions.bias",
                "table": "cls.predictions.decoder",
            },
            _lm,
        ),
        "rtd": HeadTable(
            "ReplacedTokenDetectionModel",
            {
                "dense": "mask_predictions.dense",
                "norm": "mask_predictions.LayerNorm",
                "output": "mask_predictions.classifier",
            },
            lambda config: RTDConfig(activation=look_up(ACTIVATION, config, "hidden_act"), context="first"),
        ),
        "span": HeadTable("DebertaV2ForQuestionAnswering", {"output": "qa_outputs"}, lambda config: SpanConfig()),
        "choice": HeadTable("DebertaV2ForMultipleChoice", _POOLED, _choice),
    },
    from_hf=_from_hf,
    to_hf=_to_hf,
    bare="DebertaV2Model",
    head_dropout="cls_dropout",
    renamed=_renamed,
    settle=_settle,
    presets={
        "deberta_v3_mini": _V3
        | {
            "vocab_size": 32000,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
        },
        "deberta_v3_base": _V3
        | {
            "vocab_size": 128100,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    },
)
