"""Files are whole or absent, damaged ones are refused, a folder has one writer."""

import json
import os
import subprocess
import sys
import threading

import pytest
import torch

from tunesmith.base.errors import CheckpointError, StorageError
from tunesmith.base.files import (
    file_hash,
    load_tensors,
    locked,
    new_folder,
    read_json,
    remove_parts_of,
    save_tensors,
    tensor_metadata,
    write_atomic,
    write_json,
    write_through,
)


def everything(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", ["", "text é\n", b"\x00\xff"])
def test_written_and_replaced(content, tmp_path):
    path = tmp_path / "made" / "on the way" / "file"
    for _ in range(2):
        write_atomic(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        write_atomic(path, "other")
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(3), OSError(28, "No space")])
def test_a_writer_that_fails_leaves_the_old_file(error, tmp_path):
    write_atomic(tmp_path / "file", "old")

    def write(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(StorageError if isinstance(error, OSError) else type(error)):
        write_through(tmp_path / "file", write)
    assert everything(tmp_path) == {"file": b"old"}


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "file", "old")
    program = (
        "import os, sys; from pathlib import Path; from tunesmith.base.files import write_through\n"
        "def write(t): t.write_text('half'); os.kill(os.getpid(), 9)\n"
        "write_through(Path(sys.argv[1]), write)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "file"], check=False).returncode == -9
    assert (tmp_path / "file").read_text() == "old"
    (part,) = [path for path in tmp_path.iterdir() if path.name != "file"]
    assert part.name.startswith(".file.")
    assert part.name.endswith(".part")  # what resuming sweeps away


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path, stop, seen = tmp_path / "file", threading.Event(), set()
    write_atomic(path, b"a" * 100_000)

    def read():
        while not stop.is_set():
            data = path.read_bytes()
            seen.add((len(data), data[:1], data.count(data[:1])))

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(40):
        write_atomic(path, (b"b" if i % 2 else b"a") * 100_000)
    stop.set()
    thread.join()
    assert seen <= {(100_000, b"a", 100_000), (100_000, b"b", 100_000)}


def test_errors_of_the_disk(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_atomic(tmp_path / "file" / "inner", "x")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(StorageError, match="no permission"):
        write_atomic(tmp_path / "other", "x")
    assert everything(tmp_path) == {"file": b""}


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None, 0.5]})
    assert read_json(tmp_path / "a.json") == {"é": [1, None, 0.5]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"bad": float("nan")})
    assert read_json(tmp_path / "a.json") == {"é": [1, None, 0.5]}
    for content, says in [(b"{", "not a JSON file"), (b"[1]", "must hold a JSON object"), (b"\xff", "not a JSON file")]:
        (tmp_path / "b.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=says):
            read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        read_json(tmp_path / "b.json")
    with pytest.raises(CheckpointError, match="no such file"):
        read_json(tmp_path / "c.json")


def test_tensors(tmp_path):
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.randn(5).bfloat16(), "c": torch.tensor(7), "d": torch.zeros(0, 2)}
    save_tensors(tmp_path / "a.safetensors", tensors, metadata={"key": "é"})
    again = load_tensors(tmp_path / "a.safetensors")
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
    assert tensor_metadata(tmp_path / "a.safetensors") == {"format": "pt", "key": "é"}


def test_tensors_that_share_memory_are_both_written(tmp_path):
    x = torch.randn(4, 4)
    save_tensors(tmp_path / "a.safetensors", {"whole": x, "again": x, "part": x[1:3]})
    again = load_tensors(tmp_path / "a.safetensors")
    assert torch.equal(again["whole"], x)
    assert torch.equal(again["again"], x)
    assert torch.equal(again["part"], x[1:3])


def test_damaged_tensors_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.randn(100)})
    whole = path.read_bytes()
    assert len(json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])) == 2
    for damaged in (whole[:-1], whole[:20], b"", whole + b"x", b"\xff" * 8 + whole[8:], b"\x80\x04K\x01."):
        path.write_bytes(damaged)
        for read in (load_tensors, tensor_metadata):
            with pytest.raises(CheckpointError, match="damaged") as caught:
                read(path)
            assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_tensors(path)


def test_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_one_writer_a_folder(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(StorageError, match="another process"), locked(tmp_path / "run"):
            pass
        (tmp_path / "run" / "file").touch()
    with locked(tmp_path / "run"):
        pass
    assert everything(tmp_path) == {"run/file": b""}


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from tunesmith.base.files import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "run"], check=False).returncode == -9
    with locked(tmp_path / "run"):
        pass


def test_a_folder_that_goes_while_it_is_waited_for_is_made_again(tmp_path):
    """The first holder leaves nothing, so its folder goes; the second must not hold a folder that is no more."""
    first, said = locked(tmp_path / "run"), []
    first.__enter__()

    def waiting():
        said.append(True)
        first.__exit__(None, None, None)
        assert not (tmp_path / "run").exists()

    with locked(tmp_path / "run", waiting=waiting):
        with pytest.raises(StorageError, match="another process"), locked(tmp_path / "run"):
            pass
        (tmp_path / "run" / "file").touch()
    assert said == [True]
    assert everything(tmp_path) == {"run/file": b""}


def test_a_lock_leaves_no_empty_folders(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_filled_or_as_it_was(tmp_path):
    def fail():
        with new_folder(tmp_path / "a"):
            (tmp_path / "a" / "half").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a"):
        (tmp_path / "a" / "file").touch()
    with pytest.raises(StorageError, match="already holds files"), new_folder(tmp_path / "a"):
        pass
    assert everything(tmp_path) == {"a/file": b""}


def test_parts_of_dead_processes_go(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".a.json.{dead.pid}.part", f".a.json.{os.getpid()}.part", f".b.json.{dead.pid}.part", ".a.json.x.part"]
    for name in names:
        (tmp_path / name).write_text("")
    remove_parts_of(tmp_path / "a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
