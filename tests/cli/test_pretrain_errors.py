"""What ``tunesmith pretrain`` refuses: one line, exit code 2, nothing half-written."""

import errno
import json
import re

import pytest
from tiny_pretraining import CASES, recipe, write_corpus

from tunesmith.base import files
from tunesmith.base.files import cache_folder
from tunesmith.recipes.pretrain import pretrain


@pytest.fixture
def pretrain_desk(desk, monkeypatch):
    """The desk with a corpus, a recipe for each case, and a cache of its own."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(desk.folder / "cache"))
    write_corpus(desk.folder / "corpus.txt")
    for case in CASES:
        recipe(desk.folder, case)
    return desk


@pytest.fixture
def call(pretrain_desk):
    """The arguments of a command, with another case or corpus."""

    def make(*settings, case="mlm", corpus=None):
        desk = pretrain_desk
        corpus = desk.folder / "corpus.txt" if corpus is None else corpus
        return ("pretrain", desk.folder / f"{case}.toml", "--corpus", corpus, "--out", desk.out, *settings)

    return make


@pytest.fixture
def refused(pretrain_desk):
    """Refuse a command in its last line, and leave nothing; the cache may hold whole files."""

    def check(arguments, says, *, cached=False):
        desk = pretrain_desk
        before = {name: content for name, content in desk.state().items() if "/cache" not in name}
        code, lines, printed = desk.run(*arguments)
        text = "\n".join(lines)
        assert code == 2, text
        assert "Traceback" not in text, text
        assert says in lines[-1], text
        assert len(lines[-1]) < 600, lines[-1]
        assert not printed
        assert {name: content for name, content in desk.state().items() if "/cache" not in name} == before
        left = list((desk.folder / "cache").rglob("*"))
        assert not [path for path in left if path.name.endswith(".part")]
        assert cached or not [path for path in left if path.is_file()]
        return lines[-1]

    return check


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    """Runs whose tokenizers others take: WordPiece with [MASK], Unigram with sentinels, byte-level BPE with neither."""
    folder = tmp_path_factory.mktemp("tokenizers")
    corpus = write_corpus(folder / "corpus.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_CACHE", str(folder / "cache"))
        for name, case, settings in (
            ("bert", "mlm", {}),
            ("t5", "span_corruption", {}),
            (
                "gpt2",
                "mlm",
                {
                    "model.preset": "gpt2_mini",
                    "objective": {"name": "clm"},
                    "input": {"name": "blocks"},
                    "vocabulary.style": "gpt2",
                    "vocabulary.kind": "bpe",
                    "vocabulary.vocab_size": 300,
                },
            ),
        ):
            pretrain(str(recipe(folder, case)), corpus, out=folder / name, settings={**settings, "train.max_steps": 1})
    return folder


def test_unknown_recipe(pretrain_desk, call, refused):
    line = refused(("pretrain", "bret_mini", *call()[2:]), "recipe: there is no recipe 'bret_mini'")
    assert "bert_mini" in line


def test_recipe_file_that_is_not_there(pretrain_desk, call, refused):
    refused(("pretrain", pretrain_desk.folder / "gone.toml", *call()[2:]), "gone.toml: ")


def test_no_budget(pretrain_desk, call, refused):
    file = pretrain_desk.folder / "mlm.toml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "max_steps" not in line))
    refused(call(), "train.max_steps: give a budget")


SETTINGS = {
    "data.cleaning.words=3": "data.cleaning.words: no such setting: known here: duplicates, max_digits",
    "train.batchsize=3": "train.batchsize: ",
    "objective.masked=0.2": "objective.masked: ",
    "objective=mln": "objective",
    "data.cleaning.min_words=3": "data.cleaning.min_words: no such setting: did you mean min_mean_word",
    "model.preset=bert_huge": "model.preset: there is no preset 'bert_huge'",
    "data.max_tokens=99999": "data.max_tokens: must be at most ",
    "data.max_tokens=1": "data.max_tokens: ",
    "data.max_tokens=2": "data.max_tokens: ",
    "data.short_tokens=2": "data.short_tokens: ",
    "model.num_heads=5": "model.",
    "train.micro_batch_tokens=0": "train.micro_batch_tokens: ",
    "train.device=cuda:9": "cuda:9 is not there",
    "tokenizer=/no/such/folder": "tokenizer: /no/such/folder holds no tokenizer.json",
    "train.batch_start=9": "train.batch_start: ",
    "data.short_tokens=99": "data.short_tokens: ",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_bad_setting(setting, call, refused):
    refused(call(setting), SETTINGS[setting], cached=True)


UNFIT = {
    "mlm of a decoder": (("model.preset=gpt2_mini",), "objective: mlm trains an encoder, but gpt2 is a decoder"),
    "clm of an encoder": (("objective=clm",), "objective: clm trains a decoder, but bert is an encoder"),
    "span corruption of an encoder": (
        ("objective=span_corruption",),
        "objective: span_corruption trains an encoder-decoder, but bert is an encoder",
    ),
    "nsp without pairs": (("objective=nsp",), "set input=segment_pair"),
    "nsp of swapped pairs": (
        ("objective=nsp", "input=segment_pair", "input.negatives=swapped"),
        "set input=segment_pair input.negatives=random",
    ),
    "unilm of single texts": (("objective=unilm", "input=packed"), "input=segment_pair, or objective.to_second=0"),
    "sop of random pairs": (
        ("objective=sop", "input=segment_pair", "model.preset=albert_mini"),
        "input.negatives=swapped",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_objective_that_does_not_fit(name, call, refused):
    settings, says = UNFIT[name]
    refused(call(*settings), says, cached=True)


def test_tokenizer_without_mask(call, refused, tokenizers):
    refused(call(f"tokenizer={tokenizers / 'gpt2'}"), "tokenizer: ", cached=True)


def test_tokenizer_without_sentinels(call, refused, tokenizers):
    refused(
        call(f"tokenizer={tokenizers / 'bert'}", case="span_corruption"), "tokenizer: has no sentinels", cached=True
    )


CORPORA = {
    "empty": ("corpus.txt", b"", "holds no text"),
    "blank": ("corpus.txt", b"\n \n\t\n\n", "holds no text"),
    "binary": ("corpus.txt", bytes(range(256)) * 40, "corpus.txt"),
    "invalid UTF-8": ("corpus.txt", b"a good line.\n\nand a caf\xe9.\n", "corpus.txt line 3"),
    "one gigantic line": ("corpus.txt", b"word " * 4_000_000, "corpus.txt line 1"),
    "one document": ("corpus.txt", b"The one document.\nIt has lines.\n", "is one document"),
    "no word": ("corpus.txt", b"\x0b\x0c\n\n\x1c\n", ""),
    "unknown extension": ("corpus.pdf", b"%PDF", "extension that is not supported"),
    "JSON without text": ("corpus.jsonl", b'{"title": "a"}\n{"title": "b"}\n', "text"),
    "broken JSON": ("corpus.jsonl", b'{"text": "a"}\n{"text": \n', "corpus.jsonl line 2"),
    "broken gzip": ("corpus.txt.gz", b"\x1f\x8b\x08\x00broken", "corpus.txt.gz"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_bad_corpus(name, pretrain_desk, call, refused):
    file, content, says = CORPORA[name]
    counted = name == "one document"  # it is read to the end, and how many it holds is kept
    refused(call(corpus=pretrain_desk.write(f"bad/{file}", content)), says, cached=counted)


def test_line_that_is_longer_than_allowed(call, refused):
    refused(call("data.max_line_bytes=40"), "corpus.txt line ")


def test_empty_dev_split(pretrain_desk, call, refused):
    write_corpus(pretrain_desk.write("both/train.txt", ""))
    pretrain_desk.write("both/dev.txt", "\n\n")
    refused(call(corpus=pretrain_desk.folder / "both"), "dev.txt: holds no text")


def test_corpus_that_is_not_there(pretrain_desk, call, refused):
    refused(call(corpus=pretrain_desk.folder / "gone.txt"), "gone.txt: no such file or folder")


def test_folder_without_text(pretrain_desk, call, refused):
    pretrain_desk.write("photos/holiday.jpg", b"precious")
    refused(call(corpus=pretrain_desk.folder / "photos"), "holds no file that can be read")


def test_cleaning_that_leaves_nothing(call, refused):
    refused(call("data.cleaning.min_characters=999999"), "data.cleaning: drops every document")


def test_output_that_holds_files(pretrain_desk, call, refused):
    pretrain_desk.write("out/precious.txt", "text")
    refused(call(), f"{pretrain_desk.out}: already holds precious.txt")


def test_resume_with_a_changed_recipe(pretrain_desk, call, refused):
    assert pretrain_desk.run(*call())[0] == 0
    file = pretrain_desk.folder / "mlm.toml"
    file.write_text(file.read_text().replace("batch_size = 8", "batch_size = 9"))
    line = refused((*call(), "--resume"), "train.batch_size: 8 -> 9", cached=True)
    assert "train.seed" not in line
    refused(call(), f"{pretrain_desk.out}: already holds", cached=True)


def full_disk(monkeypatch, *, after):
    """Let the disk be full once so many files are written; gives the files tried."""
    move, tried = files.os.replace, []

    def replace(source, target):
        tried.append(str(target))
        if len(tried) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        move(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    return tried


@pytest.mark.slow
def test_full_disk_at_every_file(pretrain_desk, call, monkeypatch):
    """The tokenizer, the shards, a checkpoint, the model: each fails in one line, and resuming ends the run."""
    desk = pretrain_desk
    with monkeypatch.context() as patch:
        written = full_disk(patch, after=10_000)
        assert desk.run(*call())[0] == 0
    assert written[-1].endswith("metrics.json")
    kept = (desk.out / "model.safetensors").read_bytes()
    for after in range(len(written)):
        files.remove_quietly(desk.out)
        files.remove_quietly(desk.folder / "cache")
        with monkeypatch.context() as patch:
            full_disk(patch, after=after)
            code, lines, _ = desk.run(*call())
        assert code == 2, written[after]
        assert lines[-1].endswith("cannot write: the disk is full: free some space and run again with --resume")
        assert not list(desk.folder.rglob("*.part"))
        assert not (desk.out / "metrics.json").exists()
        assert not desk.out.exists() or (desk.out / "checkpoint" / "last.safetensors").is_file()
        assert desk.run(*call(), "--resume")[0] == 0
        assert (desk.out / "model.safetensors").read_bytes() == kept


def test_full_disk_while_tokenising(pretrain_desk, call, refused, monkeypatch):
    with monkeypatch.context() as patch:
        tried = full_disk(patch, after=5)  # records of the run and of its text, how many documents, the tokenizer
        refused(call(), "the disk is full", cached=True)
    assert "/cache/tokens/" in tried[5]


@pytest.mark.parametrize("name", ["00000.tokens.bin", "00000.bounds.bin", "index.json"])
def test_damaged_shard(name, pretrain_desk, call, refused):
    assert pretrain_desk.run(*call())[0] == 0
    files.remove_quietly(pretrain_desk.out)
    file = next(cache_folder("tokens").rglob(name))
    content = bytearray(file.read_bytes())
    place = content.index(b"num_tokens") if name == "index.json" else len(content) // 2
    content[place] ^= 1
    file.write_bytes(bytes(content))
    line = refused(call(), str(file), cached=True)
    assert "run again" in line


def test_batch_that_is_smaller_than_the_number_of_processes(call, refused, monkeypatch):
    import contextlib

    from tunesmith.recipes import pretrain as module
    from tunesmith.train.parallel import Parallel

    @contextlib.contextmanager
    def sixteen(engine, *, device):
        yield Parallel(rank=0, world=16)

    monkeypatch.setattr(module, "processes", sixteen)
    refused(call(), "train.batch_size: must be at least the number of processes, 16, got 8")


def test_torchrun_without_all_it_gives(call, refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    refused(call(), "RANK: not set, but WORLD_SIZE is")


def test_loss_that_is_no_number(pretrain_desk, call):
    code, lines, _ = pretrain_desk.run(*call("train.learning_rate=1e30"))
    assert code == 2
    assert lines[-1].startswith("train: the ")
    places = r"\(sequences \d+, .* of epoch 0 of at most 24 tokens \(counted from 0\), the first '\w+ \w"
    assert re.search(r" at step \d+ " + places, lines[-1]), lines[-1]
    assert not (pretrain_desk.out / "metrics.json").exists()


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_a_last_step_that_breaks_the_model(pretrain_desk, call, resume):
    """The loss before it is finite, so only the look behind it can tell."""
    code, lines, _ = pretrain_desk.run(
        *call("train.learning_rate=1e38", "train.max_steps=1", "train.warmup=0"), *resume
    )
    assert code == 2
    assert lines[-1].startswith("train: the dev loss became ")
    assert "at step 1" in lines[-1]
    assert not (pretrain_desk.out / "metrics.json").exists()


def test_a_good_run_passes(pretrain_desk, call):
    """The commands above fail for what they say."""
    assert pretrain_desk.run(*call())[0] == 0
    assert json.loads((pretrain_desk.out / "metrics.json").read_text())["steps"] == 6
