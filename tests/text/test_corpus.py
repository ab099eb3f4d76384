"""Corpora: every format gives the same documents, in order and with their places; every fault is one line."""

import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.errors import DataError
from tunesmith.text.corpus import Corpus, CorpusSettings, Document, open_corpus
from tunesmith.text.documents import EXTENSIONS

TEXTS = ["One.\nTwo lines.", "Größe 漢字", "three"]
BLOCKS = "One.\nTwo lines.\n\n \t\nGröße 漢字\n\n\nthree\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a file into the current folder and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, content):
        data = content.encode("utf-8") if isinstance(content, str) else content
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        return name

    return write_file


def json_lines(texts, column="text"):
    return "".join(json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts))


def parquet(texts, column="text", rows=2):
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(len(texts))), column: texts}), sink, row_group_size=rows)
    return sink.getvalue()


def read(source, **settings):
    return list(open_corpus(source, CorpusSettings(**settings)).splits["train"])


def message(source, **settings):
    with pytest.raises(DataError) as caught:
        read(source, **settings)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "None" not in text
    return text


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format(write, extension):
    kind = extension.removesuffix(".gz")
    content = BLOCKS if kind == ".txt" else parquet(TEXTS) if kind == ".parquet" else json_lines(TEXTS)
    name = write(f"a{extension.upper() if extension == '.txt' else extension}", content)
    found = read(name)
    places = [1, 5, 8] if kind == ".txt" else [1, 2, 3]
    assert found == [Document(text, i, name, place) for i, (text, place) in enumerate(zip(TEXTS, places, strict=True))]
    assert found[1].where == f"{name} {'row' if kind == '.parquet' else 'line'} {places[1]}"


def test_what_divides_a_text(write):
    write("a.txt", "\ufeff\n" + BLOCKS.replace("\n", "\r\n"))
    assert [d.text for d in read("a.txt")] == TEXTS
    assert [d.text for d in read("a.txt", documents="lines")] == ["One.", "Two lines.", "Größe 漢字", "three"]
    assert [d.place for d in read("a.txt", documents="lines")] == [2, 3, 6, 9]
    (whole,) = read("a.txt", documents="files")
    assert whole.text == "One.\nTwo lines.\n\n\nGröße 漢字\n\n\nthree"
    assert whole.place == 2


@given(
    st.lists(st.lists(st.text("ab é.", min_size=1).filter(str.strip), min_size=1, max_size=3), min_size=1, max_size=5)
)
def test_blocks_are_found_again(tmp_path_factory, blocks):
    path = tmp_path_factory.mktemp("blocks") / "a.txt"
    path.write_text("\n\n".join("\n".join(block) for block in blocks), encoding="utf-8")
    assert [document.text for document in read(path)] == ["\n".join(block) for block in blocks]


@pytest.mark.parametrize("column", ["text", "content", "document"])
def test_the_text_column_is_recognised_or_named(write, column):
    assert [d.text for d in read(write("a.jsonl", json_lines(TEXTS, column)))] == TEXTS
    assert [d.text for d in read(write("a.parquet", parquet(TEXTS, column)))] == TEXTS
    write("b.jsonl", json_lines(TEXTS, "body"))
    assert [d.text for d in read("b.jsonl", text="body")] == TEXTS
    assert message("b.jsonl") == (
        "b.jsonl line 1: has no column text or content or document; found id, body: set data.text to the column"
    )
    assert "a.parquet: has no column body" in message("a.parquet", text="body")


def test_missing_texts_are_left_out_and_numbers_stay_dense(write):
    lines = ['{"text": "a"}', "", '{"text": null}', '{"text": "  "}', '{"text": "b"}']
    found = read(write("a.jsonl", "\n".join(lines)))
    assert [(d.text, d.number, d.place) for d in found] == [("a", 0, 1), ("b", 1, 5)]
    found = read(write("a.parquet", parquet([None, "a", "", "b"])))
    assert [(d.text, d.number, d.place) for d in found] == [("a", 0, 2), ("b", 1, 4)]


def test_a_folder_has_splits(write):
    for name in (
        "train-2.txt",
        "train-10.txt",
        "Validation.jsonl",
        "test_ood.txt",
        "trainings.txt",
        "BOOKS.tsv",
        ".x.txt",
    ):
        write(f"c/{name}", json_lines([name]) if name.endswith("jsonl") else name)
    found = open_corpus("c", CorpusSettings())
    texts = {split: [document.text for document in corpus] for split, corpus in found.splits.items()}
    assert texts == {"train": ["train-10.txt", "train-2.txt"], "dev": ["Validation.jsonl"], "test": ["test_ood.txt"]}
    assert found.ignored == ("BOOKS.tsv", "trainings.txt")


def test_a_folder_without_a_train_file_trains_on_the_others(write):
    for name in ("b/two.txt", "a.txt", "b/one.txt", "dev/x.txt"):
        write(f"c/{name}", name)
    found = open_corpus("c", CorpusSettings())
    texts = {split: [document.text for document in corpus] for split, corpus in found.splits.items()}
    assert texts == {"train": ["a.txt", "b/one.txt", "b/two.txt"], "dev": ["dev/x.txt"]}
    assert [document.number for document in found.splits["train"]] == [0, 1, 2]
    assert found.ignored == ()


def test_an_empty_file_among_others_is_no_fault(write):
    write("c/a.txt", "")
    write("c/b.txt", "text")
    assert [document.text for document in read("c")] == ["text"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "", "a.txt: holds no text: give at least one document"),
        ("a.txt", " \n\t\n", "a.txt: holds no text"),
        ("a.jsonl", "\n", "a.jsonl: holds no text"),
        ("a.jsonl", '{"text": ""}', "a.jsonl: holds no text"),
        ("a.txt", b"\x89PNG\0\0\n", "a.txt line 1: holds a NUL byte at offset 4"),
        ("a.txt", "fine\n\nGröße\n".encode("latin-1"), "a.txt line 3: is not UTF-8 text (byte 0xf6 at offset 8)"),
        ("a.txt", "text".encode("utf-16"), "a.txt line 1: is UTF-16 text"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"', "a.jsonl line 2: is not valid JSON"),
        ("a.jsonl", '["a"]', "a.jsonl line 1: is a JSON list, not an object"),
        ("a.jsonl", '{"text": 3}', "a.jsonl line 1: text holds a int where a text is needed"),
        ("a.jsonl", '{"text": "a"}\n{"label": 1}', "a.jsonl line 2: has no column text; found label"),
        ("a.jsonl", '{"text": "\\ud800"}', "a.jsonl line 1: holds half a surrogate pair"),
        ("a.parquet", b"PAR1 not at all", "a.parquet: is not a readable Parquet file"),
        ("a.csv", "text\n", "a.csv: has an extension that is not supported: use one of .txt .jsonl"),
    ],
)
def test_faults_are_one_line(write, name, content, said):
    assert message(write(name, content)).startswith(said)


def test_faults_in_later_documents_come_while_reading(write):
    write("a.txt", b"one\n\ntwo \xff\n")
    corpus = open_corpus("a.txt", CorpusSettings()).splits["train"]
    with pytest.raises(DataError, match="line 3: is not UTF-8"):
        list(corpus)


def test_a_damaged_gzip_file_is_named(write):
    write("a.txt.gz", BLOCKS * 500)
    data = Path("a.txt.gz").read_bytes()
    for damaged in (data[:-9], data[:20] + b"\xff" * 9 + data[29:], b"plain text"):
        Path("b.txt.gz").write_bytes(damaged)
        assert message("b.txt.gz").startswith("b.txt.gz: is a truncated or damaged gzip file")


def test_nothing_there(write, tmp_path):
    write("here.txt", "x")
    assert message("nowhere.txt") == "nowhere.txt: no such file or folder: check the path"
    assert "no such file" in message(tmp_path / "nothing")
    write("c/a.csv", "x")
    assert message("c") == (
        "c: holds no file that can be read (.txt .jsonl .ndjson .json (each also .gz) .parquet); found a.csv"
    )
    (tmp_path / "d").mkdir()
    assert message("d").endswith("found nothing")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_a_line_of_100_mb_is_refused_without_being_held(write, name):
    if name.endswith(".gz"):
        with gzip.open(write(name, ""), "wb", compresslevel=1) as stream:
            for _ in range(100):
                stream.write(b"a" * 2**20)
    else:
        with open(name, "wb") as stream:
            for _ in range(100):
                stream.write(b"a" * 2**20)
    tracemalloc.start()
    try:
        said = message(name)
        assert tracemalloc.get_traced_memory()[1] < 3 * 16 * 2**20
    finally:
        tracemalloc.stop()
    assert said.startswith(f"{name} line 1: is longer than 16777216 bytes: is a line break missing?")


def test_limits_can_be_set(write):
    write("a.txt", "12345678\n12345678\n")
    assert "line 1: is longer than 8 bytes" in message("a.txt", max_line_bytes=8)
    said = message("a.txt", max_document_characters=12)
    assert said.startswith("a.txt line 1: the document that begins here is longer than 12 characters")
    assert len(read("a.txt", max_document_characters=12, documents="lines")) == 2


def test_memory_holds_a_document_and_not_the_file(write):
    write("a.txt", ("word " * 200 + "\n\n") * 10_000)  # 10 MB
    write("a.parquet", parquet(["word " * 200] * 10_000, rows=1000))
    for name in ("a.txt", "a.parquet"):
        corpus = open_corpus(name, CorpusSettings()).splits["train"]
        tracemalloc.start()
        try:
            assert sum(1 for _ in corpus) == 10_000
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_the_fingerprint_is_of_the_content(write):
    write("a.txt", BLOCKS)
    write("b.txt", BLOCKS)
    write("c.txt", BLOCKS.replace("three", "seven"))

    def print_of(*names, **settings):
        return Corpus(tuple(Path(name) for name in names), settings=CorpusSettings(**settings)).fingerprint()

    assert print_of("a.txt") == print_of("b.txt")
    others = [print_of("a.txt", "c.txt"), print_of("c.txt", "a.txt"), print_of("a.txt", documents="lines")]
    assert len({print_of("a.txt"), print_of("c.txt"), *others}) == 5


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    package, asked = ModuleType("datasets"), []

    def load_dataset(name, config, *, split, revision, streaming):
        asked.append((name, config, split, revision, streaming))
        return iter([{"id": 1, "content": f"{split} a"}, {"id": 2, "content": None}, {"id": 3, "content": "b"}])

    def get_dataset_split_names(name, config, *, revision):
        if name != "owner/name":
            raise FileNotFoundError(f"{name} is not\non the hub")
        return ["validation", "train", "extra"]

    vars(package).update(load_dataset=load_dataset, get_dataset_split_names=get_dataset_split_names)
    monkeypatch.setitem(sys.modules, "datasets", package)

    class Info:
        sha = "c0ffee"

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name: Info)
    return asked


def test_a_data_set_of_the_hub_is_streamed(hub):
    found = open_corpus("owner/name:en", CorpusSettings())
    assert list(found.splits) == ["train", "dev"]
    assert found.ignored == ("extra",)
    texts = [(document.text, document.number, document.where) for document in found.splits["dev"]]
    assert texts == [
        ("validation a", 0, "owner/name (validation) row 1"),
        ("b", 1, "owner/name (validation) row 3"),
    ]
    assert hub[-1] == ("owner/name", "en", "validation", "c0ffee", True)
    assert found.splits["train"].fingerprint() != found.splits["dev"].fingerprint()


def test_what_goes_wrong_on_the_hub_is_one_line(hub, monkeypatch):
    assert message("nobody/nothing").startswith(
        "nobody/nothing: cannot be loaded from the hub (nobody/nothing is not on the hub)"
    )
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = message("owner/name")
    assert said.startswith("owner/name: no such file or folder here")
    assert said.endswith("pip install 'tunesmith[data]'")
