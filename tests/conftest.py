"""Tiny checkpoints and data that several tests share; nothing is downloaded, nothing of the user's is touched."""

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import torch
from tiny_models import SIZES, make_model

hypothesis.settings.register_profile("house", deadline=None)  # no test is timed: the machine may be busy
hypothesis.settings.load_profile("house")

GOOD = ("fine", "bright", "warm", "lovely", "kind", "clever")
BAD = ("dull", "cold", "slow", "noisy", "weak", "bitter")
PLAIN = ("the", "film", "a", "was", "and", "story", "of", "it", "plot", "song")
TAGS = ("O", "B-good", "B-bad")
WORD_PIECE = ("bert", "electra", "albert", "deberta_v2", "xlnet")  # segments 0 and 1; byte-level BPE has none
TASKS = ("classification", "pair", "multilabel", "regression", "tagging")


@dataclass(frozen=True)
class TinyData:
    """A labelled file and texts to predict, as the task has them."""

    file: Path
    texts: list


@pytest.fixture(autouse=True, scope="session")
def _cache_of_our_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("os.fsync", lambda handle: None)  # no test cuts the power, and a run waits for dozens of them
        yield


class Checkpoints(dict):
    """Folders by family, each made when it is first asked for."""

    def __init__(self, root: Path):
        super().__init__()
        self.root = root

    def __missing__(self, family: str) -> Path:
        self[family] = make_checkpoint(family, self.root / family)
        return self[family]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A tiny random checkpoint with its tokenizer for each family, as pretraining would leave it."""
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> dict[str, TinyData]:
    """A small file for each kind of task."""
    root = tmp_path_factory.mktemp("data")
    return {task: make_data(task, root) for task in TASKS}


@pytest.fixture(scope="session")
def speakers(tmp_path_factory) -> dict[str, Path]:
    """Tiny random checkpoints that generate, with byte-level BPE; ``bare`` is a GPT-2 without a head."""
    import transformers

    root = tmp_path_factory.mktemp("speakers")
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    kinds = {
        "llama": (transformers.LlamaForCausalLM, {**SIZES, "num_key_value_heads": 2}),
        "bart": (transformers.BartForConditionalGeneration, {**sizes, **heads}),
        "bare": (transformers.GPT2Model, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 66}),
    }
    for name, (kind, fields) in kinds.items():
        folder = root / name
        folder.mkdir()
        size = _bpe(folder, template=name == "bart", size=400)
        longest = {} if name == "bare" else {"max_position_embeddings": 66}
        torch.manual_seed(0)
        model = kind(kind.config_class(vocab_size=size, **fields, **tokens, **longest))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.05))
        if name != "bare":
            model.tie_weights()
            model.generation_config.eos_token_id = None
            model.generation_config.forced_eos_token_id = None
        model.save_pretrained(folder)
    return {name: root / name for name in kinds}


def make_checkpoint(family: str, folder: Path) -> Path:
    """Write a tiny random checkpoint: of BERT with its pooler, of RoBERTa and ELECTRA with a head we may not know."""
    folder.mkdir()
    size = _word_piece(folder) if family in WORD_PIECE else _bpe(folder)
    if family in WORD_PIECE:
        special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 3}
    else:
        special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return make_model(family, folder, vocab_size=size, **special)


def make_data(task: str, root: Path, *, rows: int = 40) -> TinyData:
    """Write a labelled file, and give ten texts beside it."""
    draw = random.Random(task)
    made = [_row(task, draw) for _ in range(rows)]
    if task in ("multilabel", "tagging"):
        file = root / f"{task}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    else:
        file = root / f"{task}.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, made[0])
            writer.writeheader()
            writer.writerows(made)
    fresh = [_row(task, draw) for _ in range(10)]
    texts = [
        row["tokens"] if task == "tagging" else (row["text_a"], row["text_b"]) if task == "pair" else row["text"]
        for row in fresh
    ]
    return TinyData(file, texts)


def _row(task: str, draw: random.Random) -> dict:
    label = draw.randrange(2)
    words = [draw.choice(PLAIN) for _ in range(draw.randint(2, 12))]
    words.insert(draw.randint(0, len(words)), draw.choice((BAD, GOOD)[label]))
    text = " ".join(words)
    if task == "tagging":
        return {"tokens": words, "tags": [TAGS[1 if word in GOOD else 2 if word in BAD else 0] for word in words]}
    if task == "pair":
        return {"text_a": text, "text_b": draw.choice((BAD, GOOD)[label]), "label": ("no", "yes")[label]}
    if task == "multilabel":
        return {"text": text, "labels": [("bad", "good")[label]] + (["long"] if len(words) > 8 else [])}
    if task == "regression":
        return {"text": text, "score": round(label + draw.random(), 3)}
    return {"text": text, "label": ("bad", "good")[label]}


def _word_piece(folder: Path) -> int:
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *PLAIN[:6], *GOOD[:4], *BAD[:4], *letters[1:], *("##" + letter for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return len(words)


def _bpe(folder: Path, *, template: bool = True, size: int = 300) -> int:
    from tokenizers.implementations import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    texts = [" ".join(PLAIN + GOOD + BAD)] * 4
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, vocab_size=size, special_tokens=special, show_progress=False)
    if template:
        tokenizer.save_model(str(folder))
    else:  # as GPT-2's: nothing stands around a text
        tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()
