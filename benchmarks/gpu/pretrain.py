"""Speed of pretraining on one GPU: our own loop beside transformers' modules, each in a process of its own.

    python benchmarks/gpu/pretrain.py --task gpt2 --out gpt2.jsonl
    python benchmarks/gpu/pretrain.py --task gpt2 --smoke          tiny, on any machine: shows that it runs

Tasks: ``gpt2`` (GPT-2 of 124 M parameters, blocks of 1,024 tokens), ``modernbert`` (ModernBERT-Base, masked tokens,
documents packed into rows of 1,024 that do not see each other), ``electra`` (ELECTRA-Small, blocks of 128). Token ids
are made up: only speed is measured. No dropout on either side.

``ours`` is what `tunesmith.pretrain` runs behind its tokenizer: feed, masks, packing, copies, micro-batches, AdamW, all
on the clock. ``transformers`` is a loop with bf16 autocast, fused AdamW and rows without padding that lie on the GPU
before the clock starts; ``transformers_compiled`` the same behind `torch.compile`. ``ours_compiled`` compiles norms and
feed-forward layers of our blocks, which the product does not do: what it would gain. MFU is by the formula of PaLM
(arXiv:2204.02311), appendix B: 6 operations a parameter and token, the table of positions left out, and 12 L T D for
attention.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from electra_peer import Electra

SIDES = ("ours", "transformers", "transformers_compiled", "ours_compiled")
WARM = 5


@dataclass(frozen=True)
class Task:
    """One model and its data.

    Attributes:
        recipe: Ours.
        input: How documents become rows.
        vocabulary: Token ids.
        tokens: Tokens of a row.
        rows: Rows of a micro-batch, and of a step.
        layers: Of the model.
        width: Of the model.
        target: What the benchmark is to reach, for the README.
        smoke: Settings of a tiny model.
    """

    recipe: str
    input: str
    vocabulary: int
    tokens: int
    rows: int
    layers: int
    width: int
    target: str
    smoke: dict[str, int] = field(default_factory=dict)


TASKS = {
    "gpt2": Task("gpt2_paper", "blocks", 50257, 1024, 32, 12, 768, "45 % MFU", {"d_ff": 256}),
    "modernbert": Task("modernbert_paper", "packed", 50368, 1024, 64, 22, 768, "0.4 M tokens/s", {"d_ff": 128}),
    "electra": Task("electra_small", "blocks", 30522, 128, 512, 12, 256, "1 M tokens/s", {"d_ff": 256}),
}
TINY = {"layers": 2, "width": 64, "rows": 4, "vocabulary": 500, "tokens": 64}


def sizes_of(given: argparse.Namespace) -> Task:
    """The task, tiny for a smoke test; rows of a micro-batch can be set."""
    task = TASKS[given.task]
    if given.smoke:
        task = Task(**{**task.__dict__, **TINY})
    return task if given.rows is None else Task(**{**task.__dict__, "rows": given.rows})


def documents_of(task: Task, count: int) -> list[list[list[int]]]:
    """Made-up documents with about this many tokens; their lengths are spread as those of web pages are."""
    stream = np.random.default_rng(0)
    found, total = [], 0
    while total < count:
        length = int(np.clip(stream.lognormal(math.log(0.4 * task.tokens), 1.0), 8, 8 * task.tokens))
        found.append([stream.integers(5, task.vocabulary, length).tolist()])
        total += length
    return found


def ours(given: argparse.Namespace, task: Task, device: torch.device, *, compiled: bool) -> dict[str, float]:
    """Our own loop, from the feed to the update."""
    from types import SimpleNamespace

    from tunesmith.recipes.feed import Feed
    from tunesmith.recipes.learner import Pretraining, Trainee, make_learner, make_updates
    from tunesmith.recipes.listener import Silent
    from tunesmith.recipes.pretrain import make_plan
    from tunesmith.recipes.pretrain_settings import pretrain_settings
    from tunesmith.recipes.settings import nested
    from tunesmith.text.sample import Frame, Vocabulary
    from tunesmith.text.tokens import Tokens
    from tunesmith.train.checkpoint import Progress
    from tunesmith.train.parallel import processes
    from tunesmith.train.precision import choose_machine, reuse_memory
    from tunesmith.train.step import Stepper

    steps = given.steps + WARM
    wanted: dict[str, object] = {
        "model.dropout": 0.0,
        "model.attention_dropout": 0.0,
        "input": task.input,
        "data.max_tokens": task.tokens,
        "train.batch_size": task.rows,
        "train.batch_start": task.rows,
        "train.micro_batch_tokens": task.rows * task.tokens,
        "train.max_steps": steps,
        "train.device": device.type,
    }
    if given.smoke:
        wanted |= {"model.num_layers": task.layers, "model.d_model": task.width, "model.num_heads": 2}
        wanted |= {f"model.{name}": value for name, value in task.smoke.items()}
    settings = pretrain_settings(task.recipe, nested(wanted))
    special = np.arange(task.vocabulary) < 5
    flags = {"begins_word": ~special, "sentence_ends": np.zeros(task.vocabulary, dtype=bool)}
    frame = Frame(before=(1,), between=(2,), after=(2,), after_pair=(2,))
    vocabulary = Vocabulary(
        size=task.vocabulary, special=special, mask=3, pad=0, begin=1, end=2, sentinels=(), frame=frame, **flags
    )
    tokens = Tokens(documents_of(task, min(2_000_000, steps * task.rows * task.tokens)))
    ready: Any = SimpleNamespace(vocabulary=vocabulary, tokenizer=None)
    model, objective = make_learner(settings, ready, Silent())
    reuse_memory()
    machine = choose_machine(device.type, "bf16")
    trainee = Trainee(model, objective).to(device)
    trainee.train()
    model.compute_dtype = machine.dtype
    if compiled:
        for block in (block for stack in model.stacks for block in stack.blocks):
            for part in (block.feedforward, block.attention_norm, block.feedforward_norm):
                part.compile(dynamic=True)
    feed = Feed(tokens, frame, settings)
    plan = make_plan(settings, feed)
    with processes(settings.train.engine, device=device) as parallel:
        work = Pretraining(trainee, objective, feed, plan, parallel, machine, settings.train.micro_batch_tokens)
        if given.data:
            return data_alone(work, given.steps)
        updates = make_updates(trainee, objective, settings)
        stepper = Stepper(work, trainee, updates, parallel, device, 0, settings.train.learning_rate, 1.0)
        progress = Progress()

        def step(number: int) -> int:
            before = progress.tokens
            stepper.step(progress, rate=lambda tokens: 0.1)
            return progress.tokens - before

        if given.trace:
            return profiled(step, given, device)
        return timed(step, given.steps, device) | {"parameters": sum(p.numel() for p in trainee.parameters())}


def data_alone(work: Any, steps: int) -> dict[str, float]:
    """Tokens a second of feed, masks and packing, on the CPU alone."""
    from tunesmith.train.checkpoint import Progress

    work.machine = type(work.machine)(torch.device("cpu"), torch.float32, "data alone")
    progress = Progress()
    work.micro_batches(progress)
    started = time.perf_counter()
    count = sum(batch.num_tokens for _ in range(steps) for batch in work.micro_batches(progress))
    return {"tokens_per_second": count / (time.perf_counter() - started)}


def profiled(step: Any, given: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """The operations that take longest, on standard error."""
    from torch.profiler import ProfilerActivity, profile

    for number in range(WARM):
        step(number)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        for number in range(3):
            step(WARM + number)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=by, row_limit=40), file=sys.stderr)
    return {"tokens_per_second": math.nan}


def theirs(given: argparse.Namespace, task: Task, device: torch.device, *, compiled: bool) -> dict[str, float]:
    """A loop of transformers' modules over rows that are full."""
    torch.manual_seed(0)
    model = make_peer(given, task).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    run = torch.compile(model) if compiled else model
    batches = [peer_batch(given.task, task, i, device) for i in range(4)]

    def step(number: int) -> int:
        ids, labels = batches[number % len(batches)]
        with torch.autocast(device.type, torch.bfloat16):
            found = run(input_ids=ids, labels=labels)
        loss = found if isinstance(found, torch.Tensor) else found.loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return ids.numel()

    return timed(step, given.steps, device) | {"parameters": sum(p.numel() for p in model.parameters())}


def make_peer(given: argparse.Namespace, task: Task) -> torch.nn.Module:
    """The model of transformers, at its best for this task."""
    import transformers

    tiny = given.smoke
    if given.task == "electra":
        less = {"vocab_size": task.vocabulary, "num_hidden_layers": task.layers} if tiny else {}
        return Electra(given.attention, hidden_dropout_prob=0, attention_probs_dropout_prob=0, **less)
    if given.task == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=task.vocabulary, n_layer=task.layers, n_embd=task.width, n_head=2 if tiny else 12,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        config._attn_implementation = given.attention
        return transformers.GPT2LMHeadModel(config)
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    less = {"intermediate_size": 128, "num_attention_heads": 2} if tiny else {}
    config = transformers.ModernBertConfig(
        vocab_size=task.vocabulary, num_hidden_layers=task.layers, hidden_size=task.width, sparse_prediction=True,
        **ids, **less,
    )  # fmt: skip
    config._attn_implementation = given.attention
    return transformers.ModernBertForMaskedLM(config)


def peer_batch(name: str, task: Task, seed: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Full rows with labels."""
    stream = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, task.vocabulary, (task.rows, task.tokens), generator=stream)
    labels = ids
    if name != "gpt2":
        rate = 0.3 if name == "modernbert" else 0.15
        hidden = torch.rand(ids.shape, generator=stream) < rate
        labels = torch.where(hidden, ids, -100)
        ids = torch.where(hidden, 3, ids)
    return ids.to(device), labels.to(device)


def timed(step: Any, steps: int, device: torch.device) -> dict[str, float]:
    """Tokens a second behind the first steps: in all, and of the median step."""
    cuda = device.type == "cuda"

    def now() -> float:
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for number in range(WARM):
        step(number)
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    counts, times = [], [now()]
    for number in range(steps):
        counts.append(step(WARM + number))
        times.append(now())
    rates = [count / (b - a) for count, a, b in zip(counts, times, times[1:], strict=False)]
    peak = torch.cuda.max_memory_allocated(device) if cuda else 0
    speed = sum(counts) / (times[-1] - times[0])
    return {"tokens_per_second": speed, "median_step": statistics.median(rates), "peak_bytes": peak}


def flops_per_token(task: Task, parameters: float) -> float:
    """Of training, by PaLM's formula; GPT-2's table of positions is read, not multiplied."""
    return 6 * (parameters - task.tokens * task.width) + 12 * task.layers * task.tokens * task.width


def environment(device: torch.device) -> dict[str, object]:
    """Machine, commit and versions."""
    import transformers

    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"device": name, "commit": commit, "python": platform.python_version(), "versions": versions}


def one_side(given: argparse.Namespace, side: str) -> dict[str, float | str]:
    """A side in a process of its own; why it failed, where it did."""
    output = subprocess.run([sys.executable, __file__, "--side", side, *sys.argv[1:]], capture_output=True, text=True)
    print(output.stderr[-6000:] if given.trace or output.returncode else "", file=sys.stderr)
    if output.returncode:
        return {"error": (output.stderr.strip().splitlines() or ["killed"])[-1][:300]}
    return json.loads(output.stdout.splitlines()[-1])


def main() -> None:
    """Run the sides alternately and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=tuple(TASKS), required=True)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, a few steps")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, help="rows of a step, each of 1,024 (electra: 128) tokens")
    parser.add_argument("--attention", default="sdpa", help="transformers': sdpa, flash_attention_2, eager")
    parser.add_argument("--peak", type=float, default=989e12, help="bf16 FLOP/s of the GPU; 989e12: H100, H200")
    parser.add_argument("--data", action="store_true", help="only how fast our data are made")
    parser.add_argument("--trace", action="store_true", help="profile our step in place of timing it")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.smoke:
        given.steps = min(given.steps, 3)
    task = sizes_of(given)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if given.side:
        run = ours if given.side.startswith("ours") else theirs
        print(json.dumps(run(given, task, device, compiled=given.side.endswith("compiled"))))
        return
    sides = ["ours"] if given.data or given.trace else given.sides.split(",")
    seen: dict[str, list[dict]] = {}
    for _ in range(1 if given.data or given.trace or given.smoke else given.rounds):
        for side in sides:
            seen.setdefault(side, []).append(one_side(given, side))
            print(side, seen[side][-1], file=sys.stderr, flush=True)
    sums: dict[str, dict] = {}
    for side, runs in seen.items():
        good = [run for run in runs if "error" not in run]
        names = good[0] if good else ()
        sums[side] = {name: statistics.median(run[name] for run in good) for name in names} if good else runs[-1]
        if good and given.task == "gpt2" and "parameters" in good[0]:
            flops = flops_per_token(task, sums[side]["parameters"])
            sums[side]["mfu"] = sums[side]["tokens_per_second"] * flops / given.peak
    speeds = {side: found["tokens_per_second"] for side, found in sums.items() if "error" not in found}
    result: dict[str, object] = {"benchmark": "gpu_pretrain", "task": given.task, "smoke": given.smoke}
    result |= {"rows": task.rows, "tokens": task.tokens, "target": task.target, "median": sums}
    peers = [speed for side, speed in speeds.items() if side.startswith("transformers")]
    if peers and "ours" in speeds:
        result["vs_best"] = speeds["ours"] / max(peers)
    line = json.dumps({**result, **environment(device)})
    print(line)
    if given.out:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
