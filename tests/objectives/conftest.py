"""Tiny models that train."""

import pytest
import torch
from toys import toy

from tunesmith.nn.head.lm import LMConfig
from tunesmith.nn.head.pretrain import PretrainConfig
from tunesmith.nn.head.rtd import RTDConfig

HEADS = {"lm": LMConfig(), "pretrain": PretrainConfig(), "rtd": RTDConfig()}


@pytest.fixture
def encoder():
    """Makes a small encoder in float64 with a head, by its name."""
    return lambda head="lm", **fields: toy("encoder", "learned", head=HEADS[head], vocab_size=50, **fields)


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)
