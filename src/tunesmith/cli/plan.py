"""``tunesmith plan``."""

import json
from typing import Annotated

import typer

from tunesmith.base.errors import SettingError
from tunesmith.cli.options import FileOption, SettingsArgument, settings_tree


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe, such as bert_paper; or a TOML file.")],
    settings: SettingsArgument = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Devices that share the work.")] = 1,
    flops: Annotated[
        float, typer.Option("--flops", help="Operations a second that one device really does; 4e14: an H100 at 40 %.")
    ] = 4e14,
    price: Annotated[float, typer.Option("--price", min=0, help="Price of one device for an hour.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    file: FileOption = None,
) -> None:
    """Say what a pretraining run would cost: parameters, memory, operations, time and money."""
    from tunesmith.recipes.plan import estimate, parts_of
    from tunesmith.recipes.pretrain_settings import pretrain_settings

    if not flops > 0:
        raise SettingError(f"--flops: must be above 0, got {flops:g}")
    resolved = pretrain_settings(recipe, settings_tree(file, settings))
    found = estimate(resolved, num_devices=gpus, flops_per_second=flops, price_per_hour=price)
    if as_json:
        print(json.dumps(found.as_tree()))
        return
    for network in found.networks:
        parts = ", ".join(f"{name} {value / 1e6:.2f}" for name, value in parts_of(network.parameters).items())
        print(f"{network.name}: {network.parameters.total / 1e6:.2f} M parameters ({parts})")
        memory = network.memory
        gradients = memory.gradients + memory.buckets
        print(
            f"  memory of one device: {memory.total / 2**30:.2f} GiB (weights {memory.weights / 2**30:.2f}, gradients "
            f"{gradients / 2**30:.2f}, optimiser {memory.optimiser / 2**30:.2f}, activations about "
            f"{memory.activations / 2**30:.2f})"
        )
    print(f"training: {found.flops_per_token / 1e6:.1f} MFLOP a token")
    if found.bill is None or found.tokens is None:
        minutes = resolved.train.minutes
        ends = "its epochs depend on the corpus" if minutes is None else f"it ends after {minutes:g} minutes"
        print(f"time: {ends}: give train.max_steps or train.tokens for an estimate")
        return
    cost = f", cost {found.bill.price:,.2f}" if price else ""
    total = found.tokens * found.flops_per_token
    print(
        f"run: {found.tokens / 1e9:.3g} G tokens, {total:.3g} FLOP: {found.bill.seconds / 3600:.3g} "
        f"hours on {gpus} device{'s' * (gpus > 1)} at {flops:.3g} FLOP/s each ({found.bill.device_hours:.3g} device "
        f"hours{cost})"
    )
