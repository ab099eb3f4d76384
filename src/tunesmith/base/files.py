"""Files that are whole or absent: atomic writes, safetensors without pickle, hashes, a lock on an output folder."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from tunesmith.base.errors import CheckpointError, StorageError


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it is seen whole or not at all, also after a crash.

    Raises:
        StorageError: No permission, no space, or the folder is missing.
    """
    data = content.encode() if isinstance(content, str) else content
    write_through(path, lambda temporary: temporary.write_bytes(data))


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, and move it into place.

    Raises:
        StorageError: No permission, no space, or the folder is missing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, safetensors.SafetensorError) as error:
        raise storage_error(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def rename_folder(temporary: Path, folder: Path) -> None:
    """Give a folder that is complete its name, on the disk too.

    Raises:
        StorageError: No permission, or a folder of that name holds something.
    """
    try:
        _sync_folder(temporary)
        temporary.rename(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise storage_error(folder, error) from None


def remove_parts_of(path: Path) -> None:
    """Delete what dead processes of this machine were writing in place of a file: for folders without a lock."""
    start = f".{path.name}."
    for part in path.parent.glob(".*.part"):
        process = part.name.removeprefix(start).removesuffix(".part")
        if part.name.startswith(start) and process.isdecimal():
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                part.unlink(missing_ok=True)
            except PermissionError:
                continue  # it lives, and is another user's


def remove_parts(folder: Path) -> None:
    """Delete what killed processes were writing, anywhere in a folder."""
    for part in folder.rglob(".*.part"):
        if part.is_dir():
            remove_quietly(part)
        else:
            part.unlink(missing_ok=True)


def storage_error(path: Path, error: Exception) -> StorageError:
    """The one-line error for a failed write."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space" in text or "os error 28" in text:
        return StorageError(f"{path}: cannot write: the disk is full: free some space and run again with --resume")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in text:
        return StorageError(f"{path}: cannot write: no permission: choose another folder")
    if number in (errno.ENOTDIR, errno.EEXIST):
        return StorageError(f"{path}: cannot write: a file stands where a folder is needed: choose another folder")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else text.splitlines()[0]
    return StorageError(f"{path}: cannot write: {reason}")


def cache_folder(name: str) -> Path:
    """``$TUNESMITH_CACHE/name``, or ``name`` in the user's cache folder for tunesmith."""
    root = os.environ.get("TUNESMITH_CACHE")
    if root:
        return Path(root) / name
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tunesmith" / name


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, atomically."""
    write_atomic(path, json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing, unreadable, or holds no JSON object.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file: is {path.parent} the folder of a model or run?") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror}") from None
    except RecursionError:
        raise CheckpointError(f"{path}: not a JSON file: nested too deeply") from None
    except ValueError as error:  # JSON and UTF-8 errors
        raise CheckpointError(f"{path}: not a JSON file: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, got {type(tree).__name__}")
    return tree


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically; tensors are made contiguous, and those that share memory are all written."""
    plain: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        found = tensor.detach().cpu().contiguous()
        plain[name] = found.clone() if found.untyped_storage().data_ptr() in places else found
        places.add(found.untyped_storage().data_ptr())
    header = {"format": "pt", **(metadata or {})}
    write_through(path, lambda temporary: safetensors.torch.save_file(plain, temporary, metadata=header))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; its header is checked against its length.

    Raises:
        CheckpointError: The file is missing, truncated, or not a safetensors file.
    """
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({reason}): fetch or save it again") from None


def tensor_metadata(path: Path) -> dict[str, str]:
    """The header strings of a safetensors file.

    Raises:
        CheckpointError: The file is missing, truncated, or not a safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path, *, waiting: Callable[[], object] | None = None) -> Iterator[int]:
    """Hold an output folder for this process. The lock is the kernel's, on the folder: a dead process holds none.

    The folder is made if need be; if it is still empty in the end, it goes again. Gives the lock's file descriptor: a
    process that inherits it holds the folder too.

    Args:
        folder: The folder.
        waiting: Called once if another living process holds the folder, which is then waited for; None: refused.

    Raises:
        StorageError: Another living process holds the folder, or it cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    held = None
    try:
        try:
            while held is None:
                held = _try_to_hold(folder, waiting)
                waiting = waiting and (lambda: None)  # said once
        except BlockingIOError:
            made.clear()  # they are the other's by now
            raise StorageError(
                f"{folder}: another process is writing into it: wait for it or choose another folder"
            ) from None
        yield held
    finally:
        for path in made:  # before the lock is given up: who waits for it must not get a folder that goes
            with contextlib.suppress(OSError):  # it holds something
                path.rmdir()
        if held is not None:
            os.close(held)


def _try_to_hold(folder: Path, waiting: Callable[[], object] | None) -> int | None:
    """The descriptor of a lock on the folder; None if the folder went while it was waited for."""
    handle = _open_to_write(folder)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), folder.stat()):
                return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Hold and fill a folder that is new or empty; after a failure it is as it was.

    Raises:
        StorageError: The folder holds files, another living process holds it, or it cannot be written.
    """
    with locked(folder):
        if any(folder.iterdir()):
            raise StorageError(f"{folder}: already holds files: choose a new folder")
        try:
            yield
        except BaseException:
            empty_folder(folder)
            raise


def _open_to_write(folder: Path) -> int:
    """Make a folder, see at once whether it can be written, and open it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
        return os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise storage_error(folder, error) from None


def empty_folder(folder: Path, *, but: str | None = None) -> None:
    """Delete all that a folder holds (save the entry ``but``), and not the folder itself, whose lock we may hold.

    Raises:
        StorageError: Something in it cannot be deleted.
    """
    try:
        for path in [path for path in folder.iterdir() if path.name != but]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise storage_error(folder, error) from None


def remove_quietly(folder: Path) -> None:
    """Delete a folder that is no longer needed; what cannot be deleted stays."""
    shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
