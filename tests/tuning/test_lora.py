"""LoRA against its formula, against plain autograd, and against one step of PEFT's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_models import families

import tunesmith as ts
from tunesmith.base.errors import SettingError
from tunesmith.base.layout import make_layout
from tunesmith.nn.head.classify import ClassifyConfig
from tunesmith.nn.linear import Linear
from tunesmith.surgery.sites import linear_sites
from tunesmith.tuning.lora import ALL, LoRAConfig, LoRALinear, _LoRA


@pytest.fixture
def model(checkpoints):
    config = ClassifyConfig(num_labels=3, hidden="tanh", dropout=0.1)
    return ts.load(checkpoints["bert"]).with_head(config, seed=1).eval()


def shake(parameters, *, std=0.1):
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=stream) * std)


def logits(model):
    ids = torch.randint(5, 60, (20,), generator=torch.Generator().manual_seed(0))
    return model.logits(ids, make_layout([3, 8, 9]))


def bits(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_bits(got, want):
    assert got.keys() == want.keys()
    assert [name for name in want if not torch.equal(got[name], want[name])] == []


def test_nothing_changes_at_first(model):
    before = logits(model)
    attached = LoRAConfig(dropout=0.3).attach(model, seed=0)
    assert torch.equal(logits(model), before)
    assert all((module.lora_B == 0).all() for module in attached.modules().values())
    assert all((module.lora_A != 0).all() for module in attached.modules().values())


def test_the_first_matrix_is_drawn_by_seed_and_site(model):
    drawn = [LoRAConfig().attach(copy.deepcopy(model), seed=seed).state() for seed in (0, 0, 1)]
    few = LoRAConfig(targets=("attention.value",)).attach(model, seed=0).state()
    site = "encoder.blocks.1.attention.value.lora_A"
    assert torch.equal(drawn[0][site], drawn[1][site])
    assert torch.equal(drawn[0][site], few[site])
    assert not torch.equal(drawn[0][site], drawn[2][site])
    assert not torch.equal(drawn[0][site], drawn[0][site.replace("blocks.1", "blocks.0")])
    bound = 32**-0.5
    assert 0.9 * bound < drawn[0][site].abs().max() <= bound


def test_what_trains(model):
    attached = LoRAConfig(rank=2).attach(model, seed=0)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    kinds = [site for site in ALL if "cross" not in site and "gate" not in site]
    sites = [f"encoder.blocks.{i}.{site}" for i in range(2) for site in kinds]
    head = {"head.dense.weight", "head.dense.bias", "head.output.weight", "head.output.bias"}
    assert trains == {f"{site}.{part}" for site in sites for part in ("lora_A", "lora_B")} | head
    assert trains == set(attached.parameters()) == set(attached.state())


@pytest.mark.parametrize(
    "fields", [{}, {"scaling": "rslora", "rank": 3}, {"targets": "attention.query,feedforward.up"}]
)
def test_merge_and_back(fields, model):
    attached = LoRAConfig(**fields).attach(model, seed=0)
    shake(attached.parameters().values())
    before, free = bits(model), logits(model)
    attached.merge()
    attached.merge()  # a second time changes nothing
    merged = logits(model)
    assert not torch.equal(bits(model)[f"{attached.sites[0]}.base.weight"], before[f"{attached.sites[0]}.base.weight"])
    torch.testing.assert_close(merged, free, rtol=0, atol=1e-5 * max(1, free.abs().max().item()))
    attached.unmerge()
    attached.unmerge()
    assert_same_bits(bits(model), before)
    assert torch.equal(logits(model), free)


def test_detach(model):
    before, plain = bits(model), logits(model)
    were = {name: p.requires_grad for name, p in model.named_parameters()}
    attached = LoRAConfig().attach(model, seed=0)
    shake(p for name, p in attached.parameters().items() if "lora" in name)
    attached.detach()
    assert_same_bits(bits(model), before)
    assert torch.equal(logits(model), plain)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == were

    attached = LoRAConfig().attach(model, seed=0)
    shake(p for name, p in attached.parameters().items() if "lora" in name)
    attached.merge()
    merged = logits(model)
    attached.detach()
    assert torch.equal(logits(model), merged)
    assert model.injected() == []


def test_the_formula():
    torch.manual_seed(0)
    base = Linear(6, 5).double()
    module = LoRALinear(base, rank=2, scale=1.7, dropout=0.0)
    shake([module.lora_A, module.lora_B], std=1)
    x = torch.randn(4, 6, dtype=torch.float64)
    weight = base.weight + 1.7 * module.lora_B @ module.lora_A
    torch.testing.assert_close(module(x), x @ weight.t() + base.bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen_input", [True, False])
def test_gradients_are_those_of_autograd(bias, frozen_input):
    torch.manual_seed(0)
    sizes = {"dtype": torch.float64, "requires_grad": True}
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=not frozen_input)
    weight, offset = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, dtype=torch.float64) if bias else None
    a, b = torch.randn(3, 6, **sizes), torch.randn(5, 3, **sizes)
    assert torch.autograd.gradcheck(lambda x, a, b: _LoRA.apply(x, weight, offset, a, b, 0.6), (x, a, b))

    wanted = [a, b] if frozen_input else [x, a, b]
    direction = torch.randn(7, 5, dtype=torch.float64)
    ours = torch.autograd.grad(_LoRA.apply(x, weight, offset, a, b, 0.6), wanted, direction)
    plain = torch.autograd.grad(F.linear(x, weight, offset) + 0.6 * F.linear(F.linear(x, a), b), wanted, direction)
    for got, want in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_bf16_stream_with_fp32_master_weights():
    torch.manual_seed(0)
    module = LoRALinear(Linear(32, 16), rank=4, scale=2.0, dropout=0.0)
    shake([module.lora_A, module.lora_B])
    x = torch.randn(50, 32)
    wide, narrow = module(x), module(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), wide, rtol=0, atol=0.05)
    gradients = []
    for output in (wide, narrow):
        output.float().square().sum().backward()
        gradients.append((module.lora_A.grad.clone(), module.lora_B.grad.clone()))
        module.zero_grad()
    for got, want in zip(gradients[1], gradients[0], strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=0, atol=0.03 * want.abs().max().item())


def test_dropout_falls_on_the_update_alone():
    torch.manual_seed(0)
    module = LoRALinear(Linear(8, 8), rank=8, scale=1.0, dropout=0.5)
    x = torch.randn(3, 8)
    assert torch.equal(module.train()(x), module.base(x))  # B is zero
    shake([module.lora_A, module.lora_B])
    kept = module.eval()(x)
    draws = torch.stack([module.train()(x).detach() for _ in range(4000)])
    assert draws.std(0).min() > 0
    torch.testing.assert_close(draws.mean(0), kept, rtol=0, atol=5 * draws.std(0).max().item() / 4000**0.5)
    with torch.no_grad():
        assert torch.equal(module.train()(x), kept)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft 0.21 asks transformers 5 for it
def test_one_step_is_that_of_peft(checkpoints):
    """Gradients and weights after one step of SGD, on the same tiny model, mini-batch and initial A."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base = checkpoints["bert"]
    plain = transformers.BertForSequenceClassification.from_pretrained(base, num_labels=3)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=6, target_modules=["query", "value"])
    theirs = peft.get_peft_model(plain, config).eval()  # no dropout: theirs draws other numbers
    ours = ts.load(base)
    head = ClassifyConfig(num_labels=3, hidden="tanh", dropout=0.1)
    ours = ours.with_head(head).eval()
    attached = LoRAConfig(rank=4, alpha=6, targets=("attention.query", "attention.value")).attach(ours, seed=0)
    pairs = {}
    for name in attached.parameters():
        place = name.replace("encoder.blocks.", "bert.encoder.layer.").replace("attention.", "attention.self.")
        place = place.replace("lora_A", "lora_A.default.weight").replace("lora_B", "lora_B.default.weight")
        place = place.replace("head.dense", "bert.pooler.dense")
        place = place.replace("head.output", "classifier.modules_to_save.default")
        pairs[name] = theirs.get_parameter("base_model.model." + place)
    shake(p for name, p in attached.parameters().items() if "lora_B" in name)
    for name, parameter in attached.parameters().items():
        pairs[name].requires_grad_(True).data.copy_(parameter)

    ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    gold = torch.tensor([0, 2, 1, 1])
    for found in (theirs(ids).logits, ours(ids).logits):
        F.cross_entropy(found, gold).backward()
    for parameters in (attached.parameters().values(), pairs.values()):
        torch.optim.SGD(parameters, lr=0.5).step()
    assert len(pairs) == 12
    for name, parameter in attached.parameters().items():
        want = pairs[name].grad
        assert want.abs().max() > 0
        torch.testing.assert_close(parameter.grad, want, rtol=0, atol=1e-5 * max(want.abs().max().item(), 1e-2))
        torch.testing.assert_close(parameter, pairs[name], rtol=0, atol=1e-6)


def test_targets(model):
    found = {
        "attention.query": 2,
        "encoder.blocks.1.attention.query": 1,
        "*.blocks.[0-1].feedforward.*": 4,
        "encoder.blocks.0.*": 6,
        "query": 2,
    }
    for pattern, count in found.items():
        assert len(LoRAConfig(targets=(pattern,)).attach(copy.deepcopy(model), seed=0).sites) == count
    with pytest.raises(SettingError, match=r"^method.targets: no site is named 'quary'"):
        LoRAConfig(targets=("attention.query", "quary")).attach(model, seed=0)
    for pattern in ("feedforward.gate", "cross_attention.query"):  # only the default asks for what there may be
        with pytest.raises(SettingError, match=r"^method.targets: no site is named"):
            LoRAConfig(targets=("attention.query", pattern)).attach(model, seed=0)
    assert model.injected() == []


@pytest.mark.parametrize("family", families())
def test_default_targets_are_all_maps_of_a_block(family, checkpoints):
    model = ts.load(checkpoints[family])
    maps = set(linear_sites(model))
    found = set(LoRAConfig().attach(model, seed=0).sites)
    assert all("position" in name for name in maps - found)
    kinds = {name.split(".", 3)[3] for name in found}
    assert ("feedforward.gate" in kinds) == any("gate" in name for name in maps)
    assert ("cross_attention.value" in kinds) == (family in ("bart", "t5"))
