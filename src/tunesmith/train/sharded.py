"""Checkpoints in shards: each process writes its part of each tensor, by torch.distributed.checkpoint in safetensors.

A checkpoint is a folder, made under another name and renamed when all processes have written. Its ``index.json`` names
the files; each file's header says which slice of which tensor it holds. torch's plain writer would add a pickle that
its reader unpickles: neither is used, and only tensors are given to the one for safetensors, as it pickles all else.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult

from tunesmith.base.errors import CheckpointError, StorageError, UserError
from tunesmith.base.files import read_json, rename_folder, storage_error, write_atomic
from tunesmith.base.shapes import Tensor
from tunesmith.train.parallel import Parallel

INDEX = "index.json"


@dataclass(frozen=True)
class Stored:
    """A tensor as it was saved.

    Attributes:
        shape: Shape of the whole.
        dtype: Type.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype


def write_shards(folder: Path, tensors: Mapping[str, Tensor], *, facts: Mapping[str, Any], parallel: Parallel) -> None:
    """Write a checkpoint; all processes call it, and it is there for none or for all of them.

    Args:
        folder: Its folder, which must not be there yet and must be the same one for all processes.
        tensors: Sharded tensors, and whole ones that are equal in all processes.
        facts: What else the index holds.
        parallel: The processes.

    Raises:
        StorageError: A process could not write; what it had written is no checkpoint.
    """
    temporary = folder.with_name(f".{folder.name}.part")
    if parallel.leads:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    parallel.barrier()
    try:
        save(dict(tensors), storage_writer=_Writer(temporary, folder, facts))
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        if isinstance(first, UserError):
            raise first from None
        if isinstance(first, OSError | safetensors.SafetensorError):
            raise storage_error(folder, first) from None
        raise first from error


class _Writer(HuggingFaceStorageWriter):
    """Torch's writer, whose last act in the leading process is ours: an index, and the folder's name."""

    def __init__(self, temporary: Path, folder: Path, facts: Mapping[str, Any]):
        super().__init__(str(temporary), save_distributed=True)
        self.temporary, self.folder, self.facts = temporary, folder, facts

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """All have written: what fails here fails in all processes."""
        names = sorted({result.storage_data.relative_path for part in results for result in part})
        absent = [name for name in names if not (self.temporary / name).is_file()]
        if absent:
            raise StorageError(
                f"{self.temporary / absent[0]}: another process has written it, and it is not here: choose a folder "
                "that all machines share"
            )
        files = {name: (self.temporary / name).stat().st_size for name in names}
        write_atomic(self.temporary / INDEX, json.dumps({"format": 1, "files": files, **self.facts}))
        rename_folder(self.temporary, self.folder)


def read_facts(folder: Path) -> dict[str, Any]:
    """The index of a checkpoint, once all its files are there.

    Raises:
        CheckpointError: A file is missing or of another size.
    """
    index = read_json(folder / INDEX)
    files = index.get("files")
    if not isinstance(files, dict) or index.get("format") != 1:
        raise CheckpointError(f"{folder / INDEX}: damaged, or of a later version")
    for name, size in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file() or path.stat().st_size != size:
            raise CheckpointError(f"{path}: this shard is missing or damaged: start with --overwrite")
    here = {path.name for path in folder.glob("*.safetensors")}
    if here != files.keys():  # the reader would take it for a part
        raise CheckpointError(f"{folder / min(here - files.keys())}: is no part of this checkpoint: delete it")
    return index


def read_stored(folder: Path) -> dict[str, Stored]:
    """What tensors a checkpoint holds.

    Raises:
        CheckpointError: A file is damaged.
    """
    return {
        name: Stored(tuple(found.size), found.properties.dtype)
        for name, found in _metadata(folder).state_dict_metadata.items()
        if isinstance(found, TensorStorageMetadata)
    }


def read_shards(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors of the shapes and types that are stored, sharded in any way; each process reads what it needs.

    Args:
        folder: Folder of the checkpoint.
        into: All of its tensors.

    Raises:
        CheckpointError: A file is damaged.
    """
    reader, planner, metadata = HuggingFaceStorageReader(str(folder)), DefaultLoadPlanner(), _metadata(folder)
    try:
        # what torch's load does, without its exchange of plans: nothing here depends on the other processes
        planner.set_up_planner(dict(into), metadata, True)
        reader.set_up_storage_reader(metadata, True)
        plan = reader.prepare_local_plan(planner.create_local_plan())
        (plan,) = reader.prepare_global_plan(planner.create_global_plan([plan]))
        reader.read_data(planner.finish_plan(plan), planner).wait()
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(folder, error) from None


def _metadata(folder: Path) -> Metadata:
    try:
        return HuggingFaceStorageReader(str(folder)).read_metadata()
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{folder}: this checkpoint is damaged ({str(error).splitlines()[0]}): use --overwrite")
