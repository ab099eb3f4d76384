"""AdamW over named parameters: matrices decay, vectors do not.

Paper: Decoupled Weight Decay Regularization (arXiv:1711.05101), algorithm 2.
"""

from collections.abc import Mapping

import torch


def adamw(
    parameters: Mapping[str, torch.nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW, fused, with betas (0.9, 0.999); the order of the parameters is that of the mapping.

    Args:
        parameters: What trains, by name.
        learning_rate: Peak learning rate.
        weight_decay: Decay of tensors with two or more dimensions.
    """
    # one group each, so that the optimiser's numbering is the mapping's whatever decays
    groups = [
        {"params": [parameter], "weight_decay": weight_decay if parameter.ndim >= 2 else 0.0}
        for parameter in parameters.values()
    ]
    runs: list[dict[str, object]] = []
    for group in groups:  # neighbours that decay alike share a group: fewer fused calls
        if runs and runs[-1]["weight_decay"] == group["weight_decay"]:
            runs[-1]["params"] += group["params"]  # pyright: ignore[reportOperatorIssue]
        else:
            runs.append(group)
    return torch.optim.AdamW(runs, lr=learning_rate, eps=1e-8, fused=True)
