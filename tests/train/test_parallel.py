"""Several processes without any: what torch is asked for, on machines that are not here."""

from collections import OrderedDict
from datetime import timedelta

import pytest
import torch

from tunesmith.base.errors import SettingError, StorageError
from tunesmith.train import checkpoint
from tunesmith.train import parallel as module
from tunesmith.train.checkpoint import Checkpoints, Progress
from tunesmith.train.parallel import Parallel, processes
from tunesmith.train.precision import choose_machine


@pytest.fixture
def asked(monkeypatch):
    """What the second of two processes asks torch for, in order, on a machine with four GPUs."""
    calls = []
    for name, value in {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1, "MASTER_ADDR": "here", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device)))
    monkeypatch.setattr(module.dist, "init_process_group", lambda *given, **more: calls.append(("group", *given, more)))
    monkeypatch.setattr(module.dist, "destroy_process_group", lambda: calls.append(("end",)))
    monkeypatch.setattr(module.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(module.dist, "get_world_size", lambda: 2)
    return calls


@pytest.mark.parametrize("name", [None, "cuda", "cuda:1"])
def test_each_process_has_a_gpu_of_its_own(asked, name):
    device = choose_machine(name, "bf16").device
    assert device == torch.device("cuda:1")
    with processes("ddp", device=device) as parallel:
        assert (parallel.rank, parallel.world, parallel.device) == (1, 2, device)
    (first, second, last) = asked
    assert first == ("set_device", device)
    assert second[:2] == ("group", "nccl")
    assert second[2]["device_id"] == device
    assert second[2]["timeout"] >= timedelta(hours=24)  # as long as a leading process may tokenise
    assert last == ("end",)


def test_more_processes_than_gpus_is_one_line(asked, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "4")
    for name in (None, "cuda"):
        with pytest.raises(SettingError, match=r"^train.device: cuda:4 is not there: this machine has 4 GPUs"):
            choose_machine(name, "bf16")


def test_alone_cuda_means_torchs_own_choice(asked, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK")
    assert choose_machine("cuda", "bf16").device == torch.device("cuda")


def test_processes_on_the_cpu_touch_no_gpu(asked):
    with processes("ddp", device=choose_machine("cpu", "fp32").device):
        pass
    assert [call[0] for call in asked] == ["group", "end"]
    assert asked[0][1] == "gloo"
    assert asked[0][2]["device_id"] is None


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_shards_lie_where_the_run_computes(monkeypatch, device):
    """Torch would take the GPUs where there are some, also for a model that is on the CPU."""
    seen = []
    monkeypatch.setattr(module, "init_device_mesh", lambda kind, shape: (kind, shape))
    monkeypatch.setattr(module, "fully_shard", lambda part, *, mesh: seen.append((part, mesh)))
    net = torch.nn.Sequential(OrderedDict(block=torch.nn.Linear(2, 2), head=torch.nn.Linear(2, 1)))
    parallel = Parallel(rank=1, world=2, engine="fsdp", device=torch.device(device))
    parallel.wrap(net, [net.block])
    kind = torch.device(device).type
    assert seen == [(net.block, (kind, (2,))), (net, (kind, (2,)))]


@pytest.fixture
def wire(monkeypatch):
    """What the leading process sends, one message after the other, for a second one that runs behind it."""
    sent = []

    def broadcast(tensor, source):
        tensor.copy_(sent.pop(0)) if follows else sent.append(tensor.clone())

    follows = []
    monkeypatch.setattr(module.dist, "broadcast", broadcast)
    return lambda: follows.append(True)


def test_what_the_leading_process_says(wire):
    words = ["runs/bert", "", "ein Ordner, größer"]
    assert [Parallel(rank=0, world=2).said(word) for word in words] == words
    wire()
    assert [Parallel(rank=1, world=2).said("other") for _ in words] == words


@pytest.mark.parametrize("save", [Checkpoints.save, Checkpoints.save_best])
def test_a_full_disk_ends_all_processes_in_one_line(wire, tmp_path, monkeypatch, save):
    def full(path, *given, **more):
        raise StorageError(f"{path}: cannot write: the disk is full")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    said = []
    for rank in (0, 1):
        with pytest.raises(StorageError) as caught:
            save(Checkpoints(tmp_path, Parallel(rank=rank, world=2)), Progress(), [])
        said.append(str(caught.value))
        wire()
    assert said[0] == said[1]
    assert said[0].endswith("the disk is full")
