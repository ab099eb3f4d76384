"""The special tokens of six well-known families, and where they stand around a text and a pair of texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Style:
    """Special tokens of a family.

    Attributes:
        special: Special tokens in the order of their ids, from 0.
        roles: What transformers calls them, such as ``mask_token``.
        single: Template around one text; None for nothing.
        pair: Template around a pair of texts.
        segments: Whether the family's models tell first and second text apart.
        padding_side: Where transformers pads.
        num_sentinels: Sentinels ``<extra_id_n>``; the first has the highest id.
        additional: Special tokens without a role.
    """

    special: tuple[str, ...]
    roles: Mapping[str, str]
    single: str | None = None
    pair: str | None = None
    segments: bool = False
    padding_side: Literal["left", "right"] = "right"
    num_sentinels: int = 0
    additional: tuple[str, ...] = ()

    @property
    def unknown(self) -> str | None:
        """The token of what has none; None where everything has one (bytes)."""
        name = self.roles.get("unk_token")
        return None if name == self.roles.get("eos_token") else name


STYLES: Mapping[str, Style] = {
    "bert": Style(
        special=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        roles={
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        },
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        segments=True,
    ),
    "roberta": Style(
        special=("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        roles={
            "bos_token": "<s>",
            "eos_token": "</s>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
    ),
    "gpt2": Style(
        special=("<|endoftext|>",),
        roles={"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
    ),
    "t5": Style(
        special=("<pad>", "</s>", "<unk>"),
        roles={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        single="$A </s>",
        pair="$A </s> $B </s>",
        num_sentinels=100,
        additional=tuple(f"<extra_id_{i}>" for i in range(100)),
    ),
    "xlnet": Style(
        special=("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"),
        roles={
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "cls_token": "<cls>",
            "sep_token": "<sep>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        single="$A <sep> <cls>:2",
        pair="$A <sep> $B:1 <sep>:1 <cls>:2",
        segments=True,
        padding_side="left",
        additional=("<eop>", "<eod>"),
    ),
    "llama": Style(
        special=("<unk>", "<s>", "</s>"),
        roles={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        single="<s> $A",
        pair="<s> $A <s> $B",
    ),
}
