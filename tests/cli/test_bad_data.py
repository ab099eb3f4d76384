"""Bad data: one line that names the file and where in it, exit code 2, nothing left behind."""

import gzip
import json
import os

import pytest

GOOD = "text,label\n" + "".join(f"a film {i},{'yes' if i % 2 else 'no'}\n" for i in range(12))
ROWS = [{"text": f"a film {i}", "label": i % 2} for i in range(12)]


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def with_row(row: object) -> str:
    """Twelve good lines and a thirteenth."""
    return lines(*ROWS, row)


def tagged(**changes: object) -> str:
    good = {"tokens": ["a", "film"], "tags": ["O", "B-x"]}
    return lines(good, good, {**good, **changes})


FILES = {
    # how the file is written
    "empty file": ("d.csv", "", [], "d.csv: is empty"),
    "only a byte order mark": ("d.csv", "\ufeff", [], "d.csv: "),
    "header only": ("d.csv", "text,label\n", [], "d.csv: has a header but no rows"),
    "ragged": ("d.csv", GOOD + "one, two, three\n", [], "d.csv line 14: has 3 cells"),
    "unclosed quotation mark": ("d.csv", GOOD + '"open,yes\n', [], "d.csv line 14: the row that begins here"),
    "latin-1": ("d.csv", (GOOD + "café,yes\n").encode("latin-1"), [], "d.csv line 14: is not UTF-8"),
    "UTF-16": ("d.csv", GOOD.encode("utf-16"), [], "d.csv line 1: is UTF-16"),
    "binary": ("d.csv", bytes(range(256)) * 4, [], "d.csv line 1: "),
    "column named twice": ("d.csv", "text,label,text\na,b,c\n", [], "d.csv line 1: the column name 'text'"),
    "column without a name": ("d.csv", "text,label,\na,b,c\n", [], "d.csv line 1: column 3 has no name"),
    "truncated gzip": ("d.csv.gz", gzip.compress(GOOD.encode())[:-12], [], "d.csv.gz: is a truncated"),
    "gzip by name only": ("d.csv.gz", GOOD, [], "d.csv.gz: is a truncated or damaged gzip"),
    "unknown extension": ("d.xlsx", GOOD, [], "d.xlsx: has an extension that is not supported"),
    "Parquet by name only": ("d.parquet", GOOD, [], "d.parquet: is not a readable Parquet file"),
    "truncated Parquet": ("d.parquet", b"PAR1" + bytes(40), [], "d.parquet: is not a readable Parquet file"),
    "no JSON": ("d.jsonl", lines(*ROWS) + "{text: a}\n", [], "d.jsonl line 13: is not valid JSON"),
    "JSON array": ("d.jsonl", with_row(["a", 1]), [], "d.jsonl line 13: is a JSON list"),
    "JSON key twice": ("d.jsonl", lines(*ROWS) + '{"text": "a", "text": "b"}\n', [], "d.jsonl line 13: is not usable"),
    "JSON NaN": ("d.jsonl", lines(*ROWS) + '{"text": "a", "label": NaN}\n', [], "d.jsonl line 13: is not usable"),
    "nested too deeply": ("d.jsonl", lines(*ROWS) + "[" * 100_000 + "\n", [], "d.jsonl line 13: is nested"),
    "half a surrogate pair": ("d.jsonl", with_row({"text": "\ud800", "label": 1}), [], "d.jsonl line 13: holds half"),
    "blank lines only": ("d.jsonl", "\n\n\n", [], "d.jsonl: holds no rows"),
    # columns
    "no text column": ("d.csv", "body,label\na,b\n", [], "name it with data.text=COLUMN"),
    "no label column": ("d.csv", "text,target\na,b\n", [], "name it with data.label=COLUMN"),
    "misnamed text": ("d.csv", GOOD, ["data.text=txet"], "data.text: {file} has no column 'txet'"),
    "misnamed pair": ("d.csv", GOOD, ["data.pair=text_b"], "data.pair: {file} has no column 'text_b'"),
    "misnamed label": ("d.csv", GOOD, ["data.label=lable"], "data.label: {file} has no column 'lable'"),
    "tagging without tags": ("d.csv", GOOD, ["data.task=tagging"], "d.csv: has no column 'tokens'"),
    # cells
    "missing text": ("d.csv", GOOD + ",yes\n", [], "d.csv line 14: column 'text' is empty"),
    "text a number": (
        "d.jsonl",
        with_row({"text": 3, "label": 1}),
        [],
        "d.jsonl line 13: column 'text' must be a text",
    ),
    "second text missing": (
        "d.jsonl",
        lines(*[{"text_a": "a", "text_b": "b", **r} for r in ROWS], ROWS[0]),
        [],
        "'text_",
    ),
    "empty label": ("d.csv", GOOD + "a film,\n", [], "d.csv line 14: column 'label' is empty"),
    "label a dictionary": (
        "d.jsonl",
        with_row({"text": "a", "label": {"x": 1}}),
        [],
        "line 13: column 'label' must be",
    ),
    "one class": ("d.csv", GOOD.replace("yes", "no"), [], "d.csv: column 'label' must hold at least 2 classes"),
    "one row": ("d.csv", "text,label\na film,yes\n", [], "d.csv: "),
    "one row of tags": ("d.jsonl", lines({"tokens": ["a", "b"], "tags": ["O", "X"]}), [], "d.jsonl: at least 2 rows"),
    "almost all labels differ": (
        "d.csv",
        "text,label\n" + "".join(f"film {i},label {i}\n" for i in range(80)),
        [],
        "d.csv: column 'label' holds 80 different labels in 80 rows",
    ),
    "target no number": ("d.csv", GOOD, ["data.task=regression"], "d.csv line 2: column 'label' must be a number"),
    "target nan": ("d.csv", "text,score\na,1.5\nb,nan\n", [], "d.csv line 3: column 'score' must be a finite number"),
    "target inf": ("d.csv", "text,score\na,inf\nb,0.5\n", [], "d.csv line 2: column 'score' must be a finite number"),
    "target empty": ("d.csv", "text,score\na,1.5\nb,\n", [], "d.csv line 3: column 'score' is empty"),
    "target a truth value": ("d.jsonl", lines({"text": "a", "score": True}), [], "line 1: column 'score' must be"),
    "target too large": (
        "d.jsonl",
        lines({"text": "a", "score": 10**400}),
        [],
        "line 1: column 'score' must be a finite",
    ),
    "label too large": (
        "d.jsonl",
        lines(*ROWS, {"text": "a", "label": 10**400}),
        ["data.task=regression"],
        "line 13: ",
    ),
    "same number everywhere": (
        "d.csv",
        "text,score\na,1.5\nb,1.5\n",
        [],
        "d.csv: column 'score' holds the same number",
    ),
    "list of labels holds a list": ("d.jsonl", lines({"text": "a", "labels": [["x"]]}), [], "line 1: column 'labels'"),
    "labels no list": (
        "d.jsonl",
        lines({"text": "a", "labels": ["x"]}, {"text": "b", "labels": 3}),
        [],
        "line 2: column",
    ),
    "fewer tags than words": ("d.jsonl", tagged(tags=["O"]), [], "line 3: column 'tags' holds 1 tags for 2 words"),
    "tags no list": ("d.jsonl", tagged(tags="O"), [], "line 3: column 'tags' must be a list"),
    "no words": ("d.jsonl", tagged(tokens=[], tags=[]), [], "line 3: column 'tokens' must be a list of words"),
    "words no strings": ("d.jsonl", tagged(tokens=["a", 7]), [], "line 3: column 'tokens' must be a list of words"),
    "one tag": ("d.jsonl", lines(*[{"tokens": ["a"], "tags": ["O"]}] * 3), [], "column 'tags' must hold at least 2"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_file_is_refused(desk, name):
    file, content, settings, says = FILES[name]
    path = desk.write(file, content)
    desk.refused("tune", desk.checkpoint, path, "--out", desk.out, *settings, says=says.format(file=path), notes=False)


FOLDERS = {
    "no train split": ({"dev.csv": GOOD}, "has no train split: it has dev"),
    "two train files": ({"train.csv": GOOD, "train.jsonl": lines(*ROWS)}, "both train.csv and train.jsonl"),
    "nothing named as a split": ({"reviews.csv": GOOD}, "found reviews.csv"),
    "train broken": ({"train.csv": GOOD + "a,b,c\n", "dev.csv": GOOD}, "train.csv line 14: has 3 cells"),
    "label unknown in dev": ({"train.csv": GOOD, "dev.csv": GOOD + "a,perhaps\n"}, "dev.csv line 14: column 'label'"),
    "label unknown in test": (
        {"train.csv": GOOD, "test.csv": GOOD + "a,perhaps\n"},
        "test.csv line 14: column 'label'",
    ),
    "dev without labels": ({"train.csv": GOOD, "dev.csv": "text\na\nb\n"}, "dev.csv: has no column 'label'"),
    "test without texts": ({"train.csv": GOOD, "test.csv": "label\nyes\nno\n"}, "test.csv: has no column 'text'"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_bad_folder_is_refused(desk, name):
    files, says = FOLDERS[name]
    for file, content in files.items():
        desk.write(f"data/{file}", content)
    desk.refused("tune", desk.checkpoint, desk.folder / "data", "--out", desk.out, says=says)


def test_empty_folder(desk):
    (desk.folder / "data").mkdir()
    desk.refused("tune", desk.checkpoint, desk.folder / "data", "--out", desk.out, says="found nothing")


def test_missing_file(desk):
    path = desk.folder / "gone.csv"
    desk.refused("tune", desk.checkpoint, path, "--out", desk.out, says=f"{path}: no such file or folder")


def test_file_that_cannot_be_opened(desk):
    path = desk.folder / "loop.csv"
    os.symlink(path, path)  # a link to itself: root, too, cannot open it
    line = desk.refused("tune", desk.checkpoint, path, "--out", desk.out, says=f"{path}: cannot be read")
    assert "symbolic links" in line


def test_data_may_not_be_found_on_the_hub(desk, monkeypatch):
    monkeypatch.chdir(desk.folder)
    desk.refused(
        "tune", desk.checkpoint, "no_such_data", "--out", desk.out, says="no_such_data: no such file or folder"
    )


def test_comparison_refuses_bad_data_as_well(desk):
    path = desk.write("d.csv", GOOD + "a,b,c\n")
    desk.refused("compare", desk.checkpoint, path, "--out", desk.out, says="d.csv line 14: has 3 cells")
