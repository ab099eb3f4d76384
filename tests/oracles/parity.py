"""Equality with transformers, for any family and head: outputs, gradients, and files both ways."""

import torch
import transformers

from tunesmith.models._checkpoint import load, save
from tunesmith.models._keys import normalise, our_name, split_fused

OUTPUTS = {  # theirs: ours
    "logits": "logits",
    "prediction_logits": "logits",
    "seq_relationship_logits": "pair_logits",
    "sop_logits": "pair_logits",
    "start_logits": "start_logits",
    "end_logits": "end_logits",
    "pooler_output": "pooled",
}
CHECKED: list[str] = []
"""Classes of transformers that the running test has compared; `print_matrix` makes its table of them."""


def perturbed(kind, config, *, seed=0):
    """A random transformers model in which nothing hides behind a zero or a one."""
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.tie_weights()
    return model


def rows(vocab_size, *, count=7, width=23, pad=0, low=5, seed=0, left=False):
    """Token ids and attention mask of documents of mixed lengths, padded on one side."""
    stream = torch.Generator().manual_seed(seed)
    ids = torch.randint(low, vocab_size, (count, width), generator=stream)
    lengths = torch.randint(1, width + 1, (count,), generator=stream)
    lengths[0] = width
    mask = (torch.arange(width) < lengths[:, None]).long()
    mask = mask.flip(1) if left else mask
    return torch.where(mask.bool(), ids, pad), mask


def assert_equal(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, theirs.abs().max().item()))


def check(theirs, folder, inputs, *, real=None):
    """Everything the acceptance asks of one model.

    Args:
        theirs: A transformers model, in eval mode.
        folder: An empty folder.
        inputs: Keyword arguments for both models.
        real: Which places of the output are compared, (B, T); the (decoder's) attention mask by default.
    """
    CHECKED.append(type(theirs).__name__)
    theirs.save_pretrained(folder / "theirs")
    ours = load(folder / "theirs")
    assert ours.fresh == ()
    if real is None:
        real = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
    real = real.bool()
    expected = theirs(**inputs, output_hidden_states=True)
    output = ours(**inputs)
    got, want = [], []
    hidden = expected.get("decoder_hidden_states") or expected.get("hidden_states")
    if hidden is not None and real.ndim == 2:
        assert_equal(output.hidden[real], hidden[-1][real])
        assert (output.hidden[~real] == 0).all()
    if type(theirs).__name__ == ours.family.bare:
        got.append(output.hidden[real].flatten())
        want.append(expected[0][real].flatten())
    for their_name, our_field in OUTPUTS.items():
        value, mine = expected.get(their_name), getattr(output, our_field)
        if value is None or (their_name == "pooler_output" and mine is None):
            continue
        if value.ndim >= 2 and value.shape[:2] == real.shape and our_field not in ("pair_logits", "pooled"):
            value, mine = value[real], mine[real]
        assert mine.shape == value.shape, (their_name, mine.shape, value.shape)
        assert_equal(mine, value)
        got.append(mine.flatten())
        want.append(value.flatten())
    assert got
    got, want = torch.cat(got), torch.cat(want)
    weight = torch.linspace(-1, 1, got.numel())
    (got @ weight).backward()
    (want @ weight).backward()
    check_gradients(ours, theirs)
    save(ours, folder / "ours")
    again, report = type(theirs).from_pretrained(folder / "ours", output_loading_info=True)
    assert not report["missing_keys"], report["missing_keys"]
    assert not report["unexpected_keys"], report["unexpected_keys"]
    assert not report["mismatched_keys"], report["mismatched_keys"]
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    return ours


def check_gradients(ours, theirs):
    """Gradients within 1e-4 of each tensor's maximum; theirs go through our tables, which only move numbers.

    Those of biases of keys are sums that cancel: they are held to a thousandth of the largest gradient of all.
    """
    found = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    head = ours.config.head.choice_name() if ours.config.head else None
    named = normalise(found, ours.family, ours.config.foreign, prefix=ours.base_prefix)
    named = split_fused(named, ours.family, ours.config.stacks, source="gradients")
    reference = {our_name(name, ours.family, head): gradient for name, gradient in named.items()}
    largest = max(gradient.abs().max().item() for gradient in found.values())
    seen = 0
    for name, parameter in ours.named_parameters():
        gradient, wanted = parameter.grad, reference.get(name)
        if wanted is None:
            assert gradient is None or not gradient.any(), name
            continue
        assert gradient is not None, name
        atol = 1e-4 * max(wanted.abs().max().item(), 1e-3, 1e-3 * largest)
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
        seen += 1
    assert seen


def architecture(name):
    """A class of transformers."""
    return getattr(transformers, name)
