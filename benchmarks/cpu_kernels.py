"""The CPU figures that the code's choices rest on: matrix products, softmax, dropout, attention, new shapes.

    python benchmarks/cpu_kernels.py

Prints a JSON line: medians in milliseconds, or rates as named.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import peers
from tunesmith.base.layout import make_layout
from tunesmith.base.random import torch_stream
from tunesmith.nn.attend import attend
from tunesmith.nn.dropout import dropout


def median_ms(work: Callable[[], object], *, repeats: int = 30) -> float:
    """Median time of a call, after three that warm up."""
    times = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[3:])


def products() -> dict[str, float]:
    """GFLOP/s of x W^T at MiniLM's widths."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        for tokens in (256, 448, 2048):
            for inner, outer in ((384, 384), (384, 1536), (1536, 384)):
                x, weight = torch.randn(tokens, inner).to(dtype), torch.randn(outer, inner).to(dtype)
                ms = median_ms(lambda x=x, weight=weight: F.linear(x, weight))
                found[f"{str(dtype)[6:]} {tokens}x{inner}x{outer}"] = round(2e-6 * tokens * inner * outer / ms)
    return found


def new_shapes() -> dict[str, float]:
    """First product of a shape against the next one of the same shape, in bf16."""
    weight = torch.randn(1536, 384).bfloat16()
    first, again = [], []
    for tokens in range(300, 360):
        x = torch.randn(tokens, 384).bfloat16()
        for times in (first, again):
            started = time.perf_counter()
            F.linear(x, weight)
            times.append(1000 * (time.perf_counter() - started))
    return {"linear first": statistics.median(first), "linear again": statistics.median(again)}


def softmaxes() -> dict[str, float]:
    """Million elements a second of a softmax over T scores in bf16: as it is, and in fp32 and back."""
    found = {}
    for length in (16, 32, 45, 48, 128):
        scores = torch.randn(150_000 // length // length, length, length).bfloat16()
        count = scores.numel() / 1000
        found[f"T={length} bf16"] = round(count / median_ms(lambda s=scores: s.softmax(-1)))
        wide = median_ms(lambda s=scores: torch.softmax(s, -1, dtype=torch.float32).to(s.dtype))
        found[f"T={length} by fp32"] = round(count / wide)
    return found


def dropouts() -> dict[str, float]:
    """Dropout of (448, 384) activations in bf16."""
    x, noise = torch.randn(448, 384).bfloat16(), torch_stream("benchmark")
    return {
        "torch": median_ms(lambda: F.dropout(x, 0.1)),
        "from bytes": median_ms(lambda: dropout(x, 0.1, noise)),
        "product 448x384x384": median_ms(lambda: F.linear(x, x[:384])),
    }


def attentions() -> dict[str, float]:
    """Forward and backward of attention over 32 sentences of 4 to 45 tokens, 12 heads of 32, bf16."""
    lengths = sorted(int(n) for n in torch.linspace(4, 45, 32).square().div(45).clamp_min(4).tolist())
    layout, total, longest = make_layout(lengths), sum(lengths), max(lengths)
    q, k, v = (torch.randn(total, 384).bfloat16().requires_grad_() for _ in range(3))
    padded = [torch.randn(32, 12, longest, 32).bfloat16().requires_grad_() for _ in range(3)]
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None])[:, None, None]

    def ours() -> None:
        attend(q, k, v, layout, num_heads=12, scale=32**-0.5).sum().backward()

    def sdpa() -> None:
        F.scaled_dot_product_attention(*padded, attn_mask=mask).sum().backward()

    return {"packed groups": median_ms(ours), "padded sdpa": median_ms(sdpa)}


def main() -> None:
    """Measure all and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    result = {
        "benchmark": "cpu_kernels",
        "products_gflops": products(),
        "new_shapes_ms": new_shapes(),
        "softmax_melements_per_s": softmaxes(),
        "dropout_ms": dropouts(),
        "attention_ms": attentions(),
        "threads": torch.get_num_threads(),
        **peers.environment(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
