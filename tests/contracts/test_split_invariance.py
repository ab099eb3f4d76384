"""A step's gradients do not depend on how it is cut: micro-batches, accumulation, processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learners import LEARNERS
from safetensors.torch import load_file
from split_step import COUNT, cuts, gradients

WAYS = [
    [COUNT],
    [6, 6],
    [1, 11],
    [11, 1],
    [5, 4, 3],
    [3, 3, 3, 3],
    [1, 2, 4, 5],
    [2, 1, 1, 8],
    [2] * 6,
    [4, 1, 1, 1, 1, 4],
    [1] * COUNT,
]
TWO = [
    [6, 6],
    [1, 5, 6],
    [5, 1, 3, 3],
    [3, 3, 6],
    [1, 1, 4, 2, 4],
    [2, 2, 2, 2, 2, 2],
    [4, 2, 5, 1],
    [6, 3, 3],
    [1] * 12,
]
"""For two processes: the micro-batches of both, those of the first end at the middle."""


def assert_same(got, want, dtype, exact=None):
    """1e-10 in float64; in fp32 1e-5 of a tensor's maximum.

    The gradient of a key's bias is zero by mathematics (softmax sees no constant), so what fp32 leaves there is
    measured against the largest gradient of all: ``exact`` are the gradients in float64, which tell such tensors.
    """
    assert set(got) == set(want)
    largest = max(float(gradient.abs().max()) for gradient in want.values())
    for name, gradient in want.items():
        nothing = exact is not None and float(exact[name].abs().max()) < 1e-12
        limit = 1e-10 if dtype == torch.float64 else 1e-5 * (largest if nothing else float(gradient.abs().max()))
        torch.testing.assert_close(
            got[name], gradient, rtol=0, atol=limit, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", LEARNERS)
def test_one_process(name):
    whole = gradients(name, [COUNT])
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in whole.values())
    assert_same(gradients(name, [1, 5, 6]), whole, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LEARNERS)
def test_one_process_in_all_ways(name, dtype):
    whole, exact = gradients(name, [COUNT], dtype=dtype), gradients(name, [COUNT])
    for way in WAYS[1:]:
        assert_same(gradients(name, way, dtype=dtype), whole, dtype, exact)


def test_the_ways_are_twenty():
    assert len(WAYS) + len(TWO) == 20
    assert all(sum(way) == COUNT for way in (*WAYS, *TWO))
    assert all(6 in [sum(way[:i]) for i in range(len(way) + 1)] for way in TWO)


@pytest.mark.slow
def test_two_processes(tmp_path):
    """DDP over gloo, all objectives and cuts in one launch."""
    script = Path(__file__).with_name("split_step.py")
    job = {"names": list(LEARNERS), "ways": TWO, "out": str(tmp_path)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(script), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in LEARNERS:
        for dtype in (torch.float64, torch.float32):
            whole, exact = gradients(name, [COUNT], dtype=dtype), gradients(name, [COUNT])
            for number in range(len(TWO)):
                assert_same(load_file(tmp_path / f"{name}-{number}-{dtype}.safetensors"), whole, dtype, exact)


def test_dropping_a_target_is_seen():
    """The test can fail: one sample less is another gradient."""
    assert cuts([5, 7]) == [list(range(5)), list(range(5, 12))]
    with pytest.raises(AssertionError):
        assert_same(gradients("mlm", [COUNT - 1]), gradients("mlm", [COUNT]), torch.float64)
