"""What every optimiser promises."""

import pytest
import torch

from tunesmith.base import choices

MORE = {
    "amsgrad": {"name": "adamw", "amsgrad": True},
    "corrected": {"name": "adam", "bias_correction": "on"},
    "corrected_lamb": {"name": "lamb", "bias_correction": "on"},
    "plain_sgd": {"name": "sgd", "momentum": 0.0},
    "nesterov": {"name": "sgd", "form": "nesterov"},
    "relative": {"name": "adafactor", "rate": "relative", "scale_by": "none"},
    "keller": {"name": "muon", "scale": "shape", "ratio": 0.1, "precision": "fp32"},
}
EVERY = {name: choices.choose("optimiser", name) for name in choices.names("optimiser")} | {
    name: choices.choose("optimiser", value) for name, value in MORE.items()
}
SHAPES = {
    "blocks.0.weight": (8, 6),
    "blocks.0.bias": (8,),
    "embeddings.tokens.weight": (11, 6),
    "map.weight": (4, 3, 5),
    "norm.weight": (6,),
    "blocks.1.weight": (2, 9),
}


@pytest.fixture(params=EVERY)
def config(request):
    return EVERY[request.param]


def fresh(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in SHAPES.items()}


def give_gradients(parameters, step, *, size=1.0):
    draw = torch.Generator().manual_seed(1000 + step)
    for parameter in parameters.values():
        parameter.grad = size * torch.randn(parameter.shape, generator=draw)


def go(optimiser, parameters, steps):
    for step in steps:
        give_gradients(parameters, step)
        for group in optimiser.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimiser.step()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_converges_on_least_squares(config):
    draw = torch.Generator().manual_seed(0)
    x, wanted = torch.randn(64, 6, generator=draw), torch.randn(4, 6, generator=draw)
    y = x @ wanted.T + 1
    weight = torch.nn.Parameter(0.1 * torch.randn(4, 6, generator=draw))
    bias = torch.nn.Parameter(torch.zeros(4))
    optimiser = config.build({"blocks.0.weight": weight, "blocks.0.bias": bias}, learning_rate=0.1, weight_decay=0.0)

    def loss():
        return (x @ weight.T + bias - y).square().mean()

    first = loss().item()
    for step in range(400):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 * (1 - step / 400)
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()
    assert loss().item() < 1e-2 * first


def test_deterministic(config):
    found = []
    for _ in range(2):
        parameters = fresh()
        go(config.build(parameters, learning_rate=0.01, weight_decay=0.1), parameters, range(5))
        found.append(parameters)
    assert same(*found)


def test_its_state_survives(config):
    """A flat table of tensors by the number of the parameter; what is read back goes on bit for bit."""
    parameters = fresh()
    optimiser = config.build(parameters, learning_rate=0.01, weight_decay=0.1)
    go(optimiser, parameters, range(4))
    tables = optimiser.state_dict()["state"]
    saved = {}
    for number, table in tables.items():
        for key, tensor in table.items():
            assert isinstance(key, str)
            assert isinstance(tensor, torch.Tensor)
            saved[number, key] = tensor.clone()
    again = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
    other = config.build(again, learning_rate=0.01, weight_decay=0.1)
    state = {}
    for (number, key), tensor in saved.items():
        state.setdefault(number, {})[key] = tensor
    other.load_state_dict({**other.state_dict(), "state": state})
    go(optimiser, parameters, range(4, 8))
    go(other, again, range(4, 8))
    assert same(parameters, again)
    numbers = dict(enumerate(SHAPES.values()))
    assert any(state.values()) or not tables
    for number, table in state.items():
        for key, tensor in table.items():
            if key.startswith(("exp_avg", "momentum", "max_")):
                assert tuple(tensor.shape) == numbers[number], "numbered as the mapping"


def test_without_its_state_it_goes_elsewhere(config):
    """Else the test before this one could not fail."""
    parameters = fresh()
    optimiser = config.build(parameters, learning_rate=0.01, weight_decay=0.1)
    go(optimiser, parameters, range(4))
    again = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
    other = config.build(again, learning_rate=0.01, weight_decay=0.1)
    go(optimiser, parameters, range(4, 8))
    go(other, again, range(4, 8))
    assert same(parameters, again) == (config == EVERY["plain_sgd"])


def test_zero_gradients_do_no_harm(config):
    parameters, before = fresh(), fresh()
    optimiser = config.build(parameters, learning_rate=0.01, weight_decay=0.0)
    for _ in range(3):
        give_gradients(parameters, 0, size=0.0)
        optimiser.step()
    assert same(parameters, before)
    go(optimiser, parameters, range(3))
    assert all(torch.isfinite(parameter).all() for parameter in parameters.values())
    assert not any(torch.equal(parameters[name], before[name]) for name in parameters)


def test_a_parameter_without_gradient_stays(config):
    parameters, before = fresh(), fresh()
    optimiser = config.build(parameters, learning_rate=0.01, weight_decay=0.1)
    for step in range(3):
        give_gradients(parameters, step)
        parameters["map.weight"].grad = parameters["norm.weight"].grad = None
        optimiser.step()
    still = {name for name in parameters if torch.equal(parameters[name], before[name])}
    assert still == {"map.weight", "norm.weight"}
    go(optimiser, parameters, range(3))  # their first gradients come late
    assert not any(torch.equal(parameters[name], before[name]) for name in parameters)


def test_vectors_do_not_decay(config):
    parameters, before = fresh(), fresh()
    optimiser = config.build(parameters, learning_rate=0.01, weight_decay=0.5)
    give_gradients(parameters, 0, size=0.0)
    optimiser.step()
    for name, parameter in parameters.items():
        if parameter.ndim == 1:
            assert torch.equal(parameter, before[name])
        else:
            assert parameter.detach().norm() < before[name].detach().norm()


def test_a_learning_rate_of_zero_changes_nothing(config):
    parameters, before = fresh(), fresh()
    optimiser = config.build(parameters, learning_rate=0.01, weight_decay=0.5)
    give_gradients(parameters, 0)
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    optimiser.step()
    assert same(parameters, before)


def test_it_knows_the_size_of_its_state(config):
    parameters = fresh()
    optimiser = config.build(parameters, learning_rate=0.01, weight_decay=0.5)
    go(optimiser, parameters, range(1))
    tables = optimiser.state_dict()["state"]
    for number, (name, parameter) in enumerate(parameters.items()):
        held = sum(tensor.numel() for tensor in tables.get(number, {}).values())
        assert config.state_numbers(name, parameter) == held
