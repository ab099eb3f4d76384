"""Device and number type from the machine alone; frozen weights come back bit for bit."""

import pytest
import torch

from tunesmith.base.errors import SettingError
from tunesmith.train import precision
from tunesmith.train.precision import choose_machine, frozen_in, peak_memory_bytes, reset_peak_memory, reuse_memory


@pytest.fixture
def module():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float32])
@pytest.mark.parametrize("fails", [False, True])
def test_frozen_in_gives_the_bits_back(module, dtype, fails):
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    places = {name: p.data_ptr() for name, p in module.named_parameters()}
    try:
        with frozen_in(module, dtype):
            frozen = {name for name, p in module.named_parameters() if p.dtype == dtype}
            assert frozen == ({"0.weight", "1.weight", "1.bias"} if dtype != torch.float32 else set(before))
            assert torch.equal(module[1].weight, before["1.weight"].to(dtype))
            with torch.no_grad():
                module[0].bias.add_(1)  # what trains is the master weight itself
                if dtype != torch.float32:
                    module[1].bias.zero_()  # what happens to the copy is not kept
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    for name, parameter in module.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.data_ptr() == places[name]
        assert torch.equal(parameter, before[name] + (1 if name == "0.bias" else 0)), name


def test_frozen_in_leaves_no_gradient_behind(module):
    with frozen_in(module, torch.bfloat16):
        x = torch.randn(3, 4)
        (x @ module[0].weight.float().t() + module[0].bias).sum().backward()
    assert module[0].bias.grad.dtype == torch.float32
    assert module[0].weight.grad is None


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (set(), torch.float32),
        ({"avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
        ({"bf16"}, torch.bfloat16),
    ],
)
def test_the_table_for_cpus(flags, wanted, monkeypatch):
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags | {"avx2"})
    machine = choose_machine("cpu", "auto")
    assert machine.dtype == wanted
    assert machine.device == torch.device("cpu")
    assert choose_machine("cpu", "fp32").dtype == torch.float32
    assert choose_machine("cpu", "bf16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "wanted"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_the_table_for_gpus(capability, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_machine(None, "auto").device.type == "cuda"
    assert choose_machine("cuda:0", "auto").dtype == wanted
    with pytest.raises(SettingError, match=r"^train.device: cuda:1 is not there: this machine has 1 GPUs"):
        choose_machine("cuda:1", "auto")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "mps:0", "cpu cpu"])
def test_unknown_devices(name):
    with pytest.raises(SettingError, match=r"^train.device: must be cpu, cuda or cuda:N"):
        choose_machine(name, "auto")


def test_memory():
    reuse_memory()
    reset_peak_memory(torch.device("cpu"))  # or an earlier, higher peak of this process would hide the block
    before = peak_memory_bytes(torch.device("cpu"))
    block = torch.ones(30_000_000)
    assert peak_memory_bytes(torch.device("cpu")) - before > 50e6
    assert block.sum() == 30_000_000
