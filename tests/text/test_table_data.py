"""`read_data`: files, folders and hub ids; the formats themselves are tested in test_table.py."""

import gzip
import os
import sys
from types import ModuleType

import pyarrow as pa
import pytest

from tunesmith.base.errors import DataError
from tunesmith.text.table import EXTENSIONS, read_data

CSV = "text,label\ngood film,1\nbad film,0\n"
JSONL = '{"text": "good film", "label": 1}\n{"text": "bad film", "label": 0}\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a file into the current folder and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, content):
        data = content.encode("utf-8") if isinstance(content, str) else content
        with open(name, "wb") as stream:
            stream.write(gzip.compress(data) if name.endswith(".gz") and content else data)
        return name

    return write_file


def message(call, *arguments):
    with pytest.raises(DataError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert "None" not in text
    return text


def test_a_file_is_the_train_split(write):
    data = read_data(write("reviews.csv", CSV))
    assert list(data) == ["train"]
    assert data["train"].where(0) == "reviews.csv line 2"


@pytest.mark.parametrize("dev", ["dev", "validation", "valid", "val", "Validation"])
def test_a_folder_has_its_splits_in_order(write, tmp_path, dev):
    for name in ("test.csv.gz", f"{dev}.csv", "train.csv", "README.md", "train_extra.csv"):
        write(name, CSV)
    data = read_data(tmp_path)
    assert list(data) == ["train", "dev", "test"]
    assert data["dev"].source == str(tmp_path / f"{dev}.csv")


def test_a_folder_may_hold_one_split_only(write):
    write("test.jsonl", JSONL)
    assert list(read_data(".")) == ["test"]


@pytest.mark.parametrize(("first", "second"), [("dev.csv", "val.jsonl"), ("train.csv", "train.csv.gz")])
def test_two_files_for_a_split_are_both_named(write, first, second):
    write(first, CSV)
    write(second, CSV)
    assert message(read_data, ".").startswith(f".: both {first} and {second} hold the ")


def test_a_folder_without_splits_lists_what_is_there(write):
    write("reviews.csv", CSV)
    write("train.xlsx", "x")
    assert "found reviews.csv, train.xlsx: rename" in message(read_data, ".")
    os.mkdir("empty")
    assert "found nothing: rename" in message(read_data, "empty")


def test_an_error_in_a_folder_names_the_file(write):
    write("train.csv", "a,b\n1\n")
    assert message(read_data, "./").startswith("./train.csv line 2: ")


class ClassLabel:
    def __init__(self, names):
        self.names = names


class ListOf:
    def __init__(self, feature):
        self.feature = feature


class Dataset:
    """What we use of a data set of the package `datasets`."""

    def __init__(self, table, features):
        self.table, self.features = table, features

    def with_format(self, name):
        assert name == "arrow"
        return self

    def __getitem__(self, rows):
        assert rows == slice(None)
        return self.table


@pytest.fixture
def hub(monkeypatch, write):
    """A stand-in for the package `datasets`: a dict of data sets, and the list of what was asked for."""
    package = ModuleType("datasets")
    sets, asked = {}, []

    def load_dataset(name, config):
        asked.append((name, config))
        if name not in sets:
            raise FileNotFoundError(f"{name} is not\non the hub")
        return sets[name]

    vars(package).update(load_dataset=load_dataset, ClassLabel=ClassLabel)
    monkeypatch.setitem(sys.modules, "datasets", package)
    return sets, asked


def test_a_hub_data_set_has_class_names(hub):
    sets, asked = hub
    features = {
        "text": object(),
        "label": ClassLabel(["neg", "pos"]),
        "tags": ListOf(ClassLabel(["O", "B-x"])),
    }
    rows = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1], "tags": [[0, 1], [], None]})
    sets["owner/name"] = dict.fromkeys(("validation", "train", "unsupervised"), Dataset(rows, features))
    data = read_data("owner/name:small")
    assert asked == [("owner/name", "small")]
    assert list(data) == ["train", "dev"]
    assert data["dev"].columns == {
        "text": ["a", "b", "c"],
        "label": ["pos", "neg", None],
        "tags": [["O", "B-x"], [], None],
    }
    assert data["dev"].where(1) == "owner/name (validation) row 2"


def test_what_goes_wrong_on_the_hub_is_one_line(hub):
    sets, _ = hub
    said = message(read_data, "nobody/nothing")
    assert said.startswith("nobody/nothing: cannot be loaded from the hub (nobody/nothing is not on the hub)")
    sets["glue"] = {"everything": None}
    assert "glue: has no split named" in message(read_data, "glue")
    sets["glue"] = {"dev": None, "validation": None}
    assert "glue: both dev and validation hold the dev split" in message(read_data, "glue")


@pytest.mark.parametrize(
    "source",
    ["", "./name", "../owner/name", "/owner/name", "~/name", "a/b/c", "owner/", "two words", "name.xlsx"]
    + [f"owner/name{extension}" for extension in EXTENSIONS],
)
def test_a_path_is_never_asked_for_on_the_hub(hub, source):
    assert "no such file or folder: check the path" in message(read_data, source)
    assert hub[1] == []


def test_a_path_object_or_a_file_that_exists_is_never_asked_for_on_the_hub(hub, tmp_path, write):
    assert "no such file or folder" in message(read_data, tmp_path / "name")
    assert "extension that is not supported" in message(read_data, write("name", "x"))
    assert hub[1] == []


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = message(read_data, "owner/name")
    assert said.startswith("owner/name: no such file or folder here")
    assert said.endswith("pip install 'tunesmith[data]'")
