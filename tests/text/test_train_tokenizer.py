"""Trained tokenizers: the same bytes each time, what transformers makes of them, what objectives are told of them."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from tunesmith.base.errors import CheckpointError, DataError, SettingError, StorageError
from tunesmith.text.corpus import CorpusSettings, Document, open_corpus
from tunesmith.text.sample import vocabulary_of
from tunesmith.text.tokenizer import Tokenizer, load_tokenizer
from tunesmith.text.train_tokenizer import TokenizerSettings, train_tokenizer

WORDS = (
    "the quick brown fox jumps over a lazy dog while seven wizards pack jugs Größe Straße über 漢字 한국어 42".split()
)
ENWIKI = Path(__file__).parents[2].parent / "shared" / "data" / "corpus_enwiki" / "dev.txt"
STYLES = {
    "bert": ("wordpiece", "[CLS] A [SEP]", "[CLS] A [SEP] B [SEP]"),
    "roberta": ("bpe", "<s> A </s>", "<s> A </s> </s> B </s>"),
    "gpt2": ("bpe", "A", "A B"),
    "t5": ("unigram", "A </s>", "A </s> B </s>"),
    "xlnet": ("unigram", "A <sep> <cls>", "A <sep> B <sep> <cls>"),
    "llama": ("bpe", "<s> A", "<s> A <s> B"),
}
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "gpt2": ["<|endoftext|>"],
    "t5": ["<pad>", "</s>", "<unk>"],
    "xlnet": ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"],
    "llama": ["<unk>", "<s>", "</s>"],
}


def corpus():
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, 12)) + ".\n" + " ".join(draw.choice(WORDS, 5)) + "!" for _ in range(120)]
    return [Document(text, i, "corpus.txt", i + 1) for i, text in enumerate(texts)]


def train(style, kind=None, **settings):
    given = {"style": style, "kind": kind or STYLES[style][0], "vocab_size": 420, **settings}
    return train_tokenizer(corpus(), TokenizerSettings(**given), max_tokens=64)


@pytest.fixture(scope="module")
def trained():
    return {style: train(style).tokenizer for style in STYLES}


@pytest.mark.parametrize("style", STYLES)
def test_transformers_loads_it_and_finds_the_same(trained, tmp_path, style):
    tokenizer = trained[style]
    tokenizer.save(tmp_path)
    for theirs in (
        transformers.AutoTokenizer.from_pretrained(tmp_path),
        transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path),
    ):
        assert theirs.model_max_length == 64
        assert theirs.convert_ids_to_tokens(list(range(len(SPECIAL[style])))) == SPECIAL[style]
        _, one, two = STYLES[style]
        first, second = "the quick fox.", "seven lazy wizards"
        inner = [" ".join(theirs.tokenize(text)) for text in (first, second)]
        shown = [template.replace("A", inner[0]).replace("B", inner[1]) for template in (one, two)]
        if style != "bert":
            assert " ".join(theirs.convert_ids_to_tokens(theirs(first)["input_ids"])) == shown[0]
            assert " ".join(theirs.convert_ids_to_tokens(theirs(first, second)["input_ids"])) == shown[1]
        assert theirs(first)["input_ids"] == tokenizer.encode([first], max_tokens=None).ids[0]
        assert theirs(first, second)["input_ids"] == tokenizer.encode([first], [second], max_tokens=None).ids[0]
        assert theirs.pad_token_id == tokenizer.pad_id
        assert theirs.decode(theirs(first)["input_ids"], skip_special_tokens=True).strip() == first
        assert theirs.padding_side == ("left" if style == "xlnet" else "right")
        assert ("token_type_ids" in theirs(first)) == (style in ("bert", "xlnet"))
        assert len(theirs) == tokenizer.vocab_size <= 420
    again = load_tokenizer(tmp_path)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.pad_id == tokenizer.pad_id


def test_transformers_loads_it_beside_a_model(trained, tmp_path):
    for style, model_type in {
        "bert": "bert",
        "roberta": "roberta",
        "t5": "t5",
        "xlnet": "xlnet",
        "llama": "llama",
    }.items():
        folder = tmp_path / style
        folder.mkdir()
        trained[style].save(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        text = "the Größe of a fox 한국어"
        assert theirs(text)["input_ids"] == trained[style].encode([text], max_tokens=None).ids[0]


def test_bert_and_xlnet_have_segments(trained):
    bert = trained["bert"].encode(["the fox"], ["a dog"], max_tokens=None)
    assert trained["bert"].backend.id_to_token(bert.ids[0][0]) == "[CLS]"
    second = bert.ids[0].index(3) + 1
    assert bert.segments[0] == [0] * second + [1] * (len(bert.ids[0]) - second)
    xlnet = trained["xlnet"].encode(["the fox"], ["a dog"], max_tokens=None)
    assert xlnet.segments[0][-1] == 2
    assert set(xlnet.segments[0][:-1]) == {0, 1}


@pytest.mark.parametrize("style", STYLES)
def test_what_objectives_are_told(trained, style):
    tokenizer = trained[style]
    found = vocabulary_of(tokenizer)
    name = tokenizer.backend.id_to_token
    extra = [f"<extra_id_{i}>" for i in range(100)] if style == "t5" else []
    assert {name(int(i)) for i in np.flatnonzero(found.special)} == {*SPECIAL[style], *extra}
    assert [name(i) for i in found.sentinels] == extra
    if extra:
        assert found.sentinels[0] == found.size - 1
        assert list(found.sentinels) == list(range(found.size - 1, found.size - 101, -1))

    def named(i):
        return None if i is None else name(i)

    mask = {"bert": "[MASK]", "roberta": "<mask>", "xlnet": "<mask>"}.get(style)
    pad = {"bert": "[PAD]", "roberta": "<pad>", "t5": "<pad>", "xlnet": "<pad>"}.get(style)
    begin = {"bert": "[CLS]", "roberta": "<s>", "llama": "<s>"}.get(style)
    end = {"bert": "[SEP]", "gpt2": "<|endoftext|>", "xlnet": "<sep>"}.get(style, "</s>")
    assert [named(i) for i in (found.mask, found.pad, found.begin, found.end)] == [mask, pad, begin, end]
    frames = {
        "bert": (["[CLS]"], ["[SEP]"], ["[SEP]"], ["[SEP]"], 1, None),
        "roberta": (["<s>"], ["</s>", "</s>"], ["</s>"], ["</s>"], 0, None),
        "gpt2": ([], [end], [end], [end], 0, None),
        "t5": ([], [end], [end], [end], 0, None),
        "xlnet": ([], ["<sep>"], ["<sep>", "<cls>"], ["<sep>", "<cls>"], 1, 2),
        "llama": (["<s>"], ["</s>", "<s>"], ["</s>"], ["</s>"], 0, None),
    }
    frame = found.frame
    parts = [[name(i) for i in part] for part in (frame.before, frame.between, frame.after, frame.after_pair)]
    assert (*parts, frame.second, frame.last) == frames[style]
    assert name(int(np.flatnonzero(found.sentence_ends)[0])) is not None
    for text in ("fox.", "fox!"):
        assert found.sentence_ends[tokenizer.plain([text])[0][-1]]
    assert not found.sentence_ends[tokenizer.plain(["fox"])[0]].any()


@pytest.mark.parametrize("style", STYLES)
def test_words_begin_where_they_begin(trained, style):
    found = vocabulary_of(trained[style])
    backend = trained[style].backend
    text = "the Größe wizards jumps"
    encoding = backend.encode(text, add_special_tokens=False)
    at_word = [start == 0 or text[start - 1] == " " or text[start] == " " for start, _ in encoding.offsets]
    begins = found.begins_word[encoding.ids]
    if style in ("roberta", "gpt2", "llama"):
        assert not begins[0]  # nothing stands before the first word of a byte-level text
        begins[0] = True
    assert begins.tolist() == at_word
    assert found.begins_word[found.special].all()


def test_a_hash_sign_does_not_make_bpe_a_word_piece():
    texts = ["## heading ## the fox ## the dog " * 3] * 20
    documents = [Document(text, i, "a.txt", 1) for i, text in enumerate(texts)]
    settings = TokenizerSettings(kind="bpe", style="gpt2", vocab_size=300)
    tokenizer = train_tokenizer(documents, settings).tokenizer
    assert tokenizer.token_id("##") is not None or tokenizer.token_id("Ġ##") is not None
    found = vocabulary_of(tokenizer)
    assert not found.begins_word[tokenizer.token_id("e")]
    assert found.begins_word[tokenizer.token_id("Ġ")]


def test_the_full_stop_of_chinese_ends_a_sentence_in_bytes():
    documents = [Document("漢字。漢字。" * 30, 0, "a.txt", 1)]
    tokenizer = train_tokenizer(documents, TokenizerSettings(kind="bpe", style="gpt2", vocab_size=280)).tokenizer
    found = vocabulary_of(tokenizer)
    ids = tokenizer.plain(["漢字。"])[0]
    assert found.sentence_ends[ids[-1]]


KINDS = (("bert", "wordpiece"), ("roberta", "bpe"), ("t5", "unigram"))
SCRIPT = """
import errno
import hashlib, json, sys
from tunesmith.text.corpus import Document
from tunesmith.text.train_tokenizer import TokenizerSettings, train_tokenizer
documents = [Document(text, i, "a.txt", 1) for i, text in enumerate(json.load(sys.stdin))]
for style, kind in {kinds}:
    found = train_tokenizer(documents, TokenizerSettings(style=style, kind=kind, vocab_size=420)).tokenizer
    print(hashlib.sha256(found.fingerprint().encode()).hexdigest())
"""


def hashes(documents):
    for style, kind in KINDS:
        found = train_tokenizer(documents, TokenizerSettings(style=style, kind=kind, vocab_size=420)).tokenizer
        yield hashlib.sha256(found.fingerprint().encode()).hexdigest()


def test_the_same_text_gives_the_same_bytes_in_any_process():
    here = list(hashes(corpus()))
    assert all(list(hashes(corpus())) == here for _ in range(5))  # the library draws a new order each time
    texts = json.dumps([document.text for document in corpus()])
    code = SCRIPT.format(kinds=KINDS)
    run = subprocess.run([sys.executable, "-c", code], input=texts, capture_output=True, text=True, check=True)
    assert run.stdout.split() == here


@pytest.mark.slow
@pytest.mark.skipif(not ENWIKI.exists(), reason="needs the shared corpora")
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_real_text_gives_the_same_bytes(kind):
    documents = list(open_corpus(ENWIKI, CorpusSettings()).splits["train"])
    settings = TokenizerSettings(kind=kind, vocab_size=4000)
    found = [train_tokenizer(documents, settings).tokenizer for _ in range(4)]
    assert len({one.fingerprint() for one in found}) == 1
    assert found[0].vocab_size == 4000


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_case_is_kept_or_not_and_accents_are_kept(kind):
    for lowercase in (False, True):
        tokenizer = train("bert", kind, lowercase=lowercase).tokenizer
        same = tokenizer.plain(["Größe"]) == tokenizer.plain(["größe"])
        assert same == lowercase
        assert tokenizer.plain(["größe"]) != tokenizer.plain(["grosse"])
        said = tokenizer.decode(tokenizer.plain(["Größe über"])[0])
        assert said.strip() == ("größe über" if lowercase else "Größe über")


def test_only_the_beginning_is_read_and_said():
    found = train("bert", max_characters=100)
    assert (found.num_characters, found.num_documents, found.complete) == (100, 2, False)
    assert "100 characters of 2 documents" in found.summary()
    assert train("bert").complete


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"style": "gpt2", "kind": "wordpiece"}, "vocabulary.style: gpt2 has no unknown token"),
        ({"style": "gpt2", "kind": "unigram"}, "vocabulary.style: gpt2 has no unknown token"),
        ({"style": "roberta", "kind": "bpe", "vocab_size": 260}, "vocabulary.vocab_size: must be at least 261"),
        ({"style": "t5", "kind": "bpe", "vocab_size": 300}, "vocabulary.vocab_size: must be at least 359"),
    ],
)
def test_settings_that_cannot_be(given, said):
    with pytest.raises(SettingError) as caught:
        train_tokenizer(corpus(), TokenizerSettings(**given))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_corpus_without_a_word_is_refused():
    with pytest.raises(DataError, match="has no word"):
        train_tokenizer([Document(" \t", 0, "a.txt", 1)], TokenizerSettings(vocab_size=100))


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_many_characters_do_not_break_the_limit(kind):
    text = " ".join(chr(0xAC00 + i) + chr(0xAC00 + i * 7 % 2000) for i in range(2000))
    documents = [Document(text, 0, "a.txt", 1)]
    tokenizer = train_tokenizer(documents, TokenizerSettings(kind=kind, vocab_size=300)).tokenizer
    assert tokenizer.vocab_size <= 300


def test_special_tokens_in_a_text_are_plain_text(trained):
    for style, tokenizer in trained.items():
        special = np.flatnonzero(vocabulary_of(tokenizer).special)
        unknown = tokenizer.token_id("[UNK]" if style == "bert" else "<unk>")
        for name in SPECIAL[style]:
            ids = set(tokenizer.plain([f"the {name} fox"])[0])
            assert not ids & {int(i) for i in special if i != unknown}
            assert ids
        # and where they are wanted they are found
        assert tokenizer.backend.encode(SPECIAL[style][0]).ids.count(0) >= 1


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    backend = Backend(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(CheckpointError, match="has no token that ends a text"):
        vocabulary_of(Tokenizer(backend, {}))


ROLES = {
    "as text": {"tokenizer_config.json": {"mask_token": "<blank>", "eos_token": "<stop>"}},
    "as tables": {
        "tokenizer_config.json": {"mask_token": {"content": "<blank>"}, "eos_token": None, "sep_token": "<stop>"}
    },
    "in the other file": {
        "tokenizer_config.json": {"eos_token": "<not there>"},
        "special_tokens_map.json": {"mask_token": "<blank>", "eos_token": {"content": "<stop>"}},
    },
}


def named(*special, **files):
    """A tokenizer without a template whose files name the roles of its tokens."""
    backend = Backend(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    backend.add_special_tokens(list(special))
    return Tokenizer(backend, {name: json.dumps(tree).encode() for name, tree in files.items()})


@pytest.mark.parametrize("files", ROLES.values(), ids=ROLES)
def test_mask_and_end_are_those_that_the_files_name(files):
    """Whatever they are called, and though others bear the usual names."""
    for more in ((), ("<mask>", "</s>", "[SEP]")):
        found = vocabulary_of(named(*more, "<blank>", "<stop>", **files))
        names = [*more, "<blank>", "<stop>"]
        assert found.mask == 2 + names.index("<blank>")
        assert found.end == 2 + names.index("<stop>")


def test_mask_and_end_are_found_by_their_names_where_no_file_names_them():
    found = vocabulary_of(named("<|mask|>", "<|end_of_text|>", **{"tokenizer_config.json": {"mask_token": None}}))
    assert (found.mask, found.end) == (2, 3)


@pytest.mark.parametrize("fails", [1, 2])
def test_a_tokenizer_is_whole_or_not_there(trained, tmp_path, monkeypatch, fails):
    """Whichever of its files cannot be put in place; a run takes what it finds for its tokenizer."""
    real, replaced = os.replace, []

    def replace(source, target):
        replaced.append(target)
        if len(replaced) == fails:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(StorageError):
        trained["roberta"].save(tmp_path)
    assert load_tokenizer(tmp_path) is None
    monkeypatch.undo()
    trained["roberta"].save(tmp_path)
    whole = load_tokenizer(tmp_path)
    assert whole is not None
    assert whole.files.keys() == {"tokenizer.json", "tokenizer_config.json"}
