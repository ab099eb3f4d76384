"""Speed of generation, of DeBERTa and of encoder inference: ours against transformers at its best attention setting.

    python benchmarks/architectures.py --task generation --out benchmarks/results/architectures.jsonl

Tasks: ``generation`` (GPT-2 of 124 M parameters, 32 prompts of 10 to 200 tokens, 64 new tokens, greedy), ``deberta``
(DeBERTa-v3-base's shape, forward and backward of 8 texts of 512 tokens, peak memory), ``inference`` (all-MiniLM-L6-v2,
1,000 texts of mixed length). Each side runs in a process of its own, alternately, in the same type of numbers; the
peer's attention is tried in every way that it has, and its best median counts.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import alternating
import peers

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDES = {
    "generation": ("ours", "peer_sdpa", "peer_eager"),
    "deberta": ("ours", "peer_eager"),
    "inference": ("ours", "peer_padded_sdpa", "peer_padded_eager", "peer_sorted_sdpa", "peer_sorted_eager"),
}
REPEATS = {"generation": 2, "deberta": 3, "inference": 2}


def ours_of(kind: type, config: object) -> object:
    """Our model with the peer's random weights."""
    import tunesmith

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        kind(config).save_pretrained(folder)
        return tunesmith.load(folder)


def generation(side: str, dtype: torch.dtype, data: Path) -> tuple[Callable[[], None], int]:
    """One call makes 64 tokens behind each of 32 prompts; gives the number of new tokens."""
    import transformers

    stream = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 201, (32,), generator=stream).tolist()
    prompts = [torch.randint(0, 50_000, (n,), generator=stream) for n in lengths]
    width = max(lengths)
    ids = torch.stack([torch.cat([torch.full((width - len(p),), 50_256), p]) for p in prompts])
    mask = torch.stack([torch.cat([torch.zeros(width - len(p)), torch.ones(len(p))]).long() for p in prompts])
    config = transformers.GPT2Config(eos_token_id=None, bos_token_id=None, pad_token_id=50_256)
    if side == "ours":
        model = ours_of(transformers.GPT2LMHeadModel, config).to(dtype)
        return lambda: model.generate(ids, mask, max_new_tokens=64), 32 * 64
    config._attn_implementation = side.removeprefix("peer_")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval().to(dtype)

    def call() -> None:
        made = model.generate(ids, attention_mask=mask, max_new_tokens=64, do_sample=False)
        assert made.shape[1] == width + 64

    return call, 32 * 64


def deberta(side: str, dtype: torch.dtype, data: Path) -> tuple[Callable[[], None], int]:
    """One call is forward and backward; gives the number of tokens."""
    import transformers

    config = transformers.DebertaV2Config(
        vocab_size=128_100,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        max_relative_positions=-1,
        pooler_hidden_size=768,
        num_labels=2,
    )
    ids = torch.randint(0, 128_000, (8, 512), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    if side == "ours":
        from tunesmith.base.layout import make_layout

        model = ours_of(transformers.DebertaV2ForSequenceClassification, config).train()
        model.compute_dtype = None if dtype == torch.float32 else dtype

        def ours() -> None:
            layout = make_layout([512] * 8, noise=torch.Generator().manual_seed(0))
            torch.nn.functional.cross_entropy(model.logits(ids.flatten(), layout), labels).backward()
            model.zero_grad()

        return ours, ids.numel()
    torch.manual_seed(0)
    model = transformers.DebertaV2ForSequenceClassification(config).train()

    def theirs() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        model.zero_grad()

    return theirs, ids.numel()


def inference(side: str, dtype: torch.dtype, data: Path) -> tuple[Callable[[], None], int]:
    """One call runs 1,000 texts; gives their number."""
    texts = [row["text"] for name in ("sst2", "trec", "imdb", "ag_news_10k") for row in _first(data, name, 250)]
    order = np.random.default_rng(0).permutation(len(texts))
    texts = [texts[i] for i in order]
    folder = str(peers.checkpoint())
    if side == "ours":
        import tunesmith
        from tunesmith.recipes.open import need_tokenizer
        from tunesmith.text.batching import Examples, cut_by_tokens, pack
        from tunesmith.train.precision import reuse_memory

        model = tunesmith.load(folder).to(dtype)
        examples = Examples(need_tokenizer(model).encode(texts, None, max_tokens=256))
        reuse_memory()

        def ours() -> None:
            with torch.no_grad():
                for indices in cut_by_tokens(range(len(examples)), examples.lengths, max_tokens=4096):
                    batch = pack(examples, indices)
                    model.hidden(batch.token_ids, batch.layout)

        return ours, len(texts)
    import transformers

    _, arrangement, attention = side.split("_")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(texts, truncation=True, max_length=256)["input_ids"]
    if arrangement == "sorted":
        encoded = sorted(encoded, key=len)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation=attention).eval().to(dtype)

    def theirs() -> None:
        with torch.no_grad():
            for first in range(0, len(encoded), 32):
                model(**tokenizer.pad({"input_ids": encoded[first : first + 32]}, return_tensors="pt"))

    return theirs, len(texts)


def _first(data: Path, name: str, count: int) -> list[dict]:
    return peers.load_rows(data, name, "test", count)


def run_side(task: str, side: str, dtype: torch.dtype, data: Path, threads: int) -> dict[str, float]:
    """One measurement, in this process."""
    from tunesmith.train.precision import peak_memory_bytes, reset_peak_memory

    torch.set_num_threads(threads)
    call, units = globals()[task](side, dtype, data)
    reset_peak_memory(torch.device("cpu"))
    call()
    times = []
    for _ in range(REPEATS[task]):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return {
        "units_per_second": units / statistics.median(times),
        "peak_bytes": peak_memory_bytes(torch.device("cpu")),
    }


def main() -> None:
    """Alternate the sides and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(SIDES), required=True)
    parser.add_argument("--type", choices=list(TYPES), default="bf16")
    parser.add_argument("--data", type=Path, default=peers.DEFAULT_DATA, help="data folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        dtype = TYPES[arguments.type]
        print(json.dumps(run_side(arguments.task, arguments.side, dtype, arguments.data, arguments.threads)))
        return
    sides = SIDES[arguments.task]
    seen: dict[str, list[alternating.Figures]] = {}
    options = ["--task", arguments.task, "--type", arguments.type, "--data", str(arguments.data)]
    options += ["--threads", str(arguments.threads)]
    for _ in range(arguments.rounds):
        alternating.one_round(__file__, sides, options, seen)
    medians = alternating.medians(seen)
    ours = medians["ours"]
    result: dict[str, object] = {"benchmark": "architectures", "task": arguments.task, "type": arguments.type}
    result |= {"threads": arguments.threads, "rounds": arguments.rounds, "median": medians, **peers.environment()}
    groups = {side.rpartition("_")[0] for side in sides if side != "ours"}
    result["ratios"] = {
        f"speed_vs_{group}": ours["units_per_second"]
        / max(medians[side]["units_per_second"] for side in sides if side.startswith(group + "_"))
        for group in sorted(groups)
    } | {
        f"memory_vs_{group}": ours["peak_bytes"]
        / min(medians[side]["peak_bytes"] for side in sides if side.startswith(group + "_"))
        for group in sorted(groups)
    }
    alternating.publish(result, arguments.out)


if __name__ == "__main__":
    main()
