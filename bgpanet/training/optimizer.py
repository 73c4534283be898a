"""AdamW over a network's parameters: the rate of each layer, and what is frozen."""

from collections.abc import Mapping

import torch
from torch import nn

from bgpanet.specs import TrainingSpec


def make_optimizer(model: nn.Module, training: TrainingSpec, depths: Mapping[str, int]) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019). Each group has its `lr_scale`, which multiplies the scheduled rate.

    With `layer_decay` d, a layer's scale is d^(L - l), l its depth and L that of the top (Clark et al., ICLR 2020).
    """
    top = max(depths.values())
    scales = {name: training.layer_decay ** (top - depth) for name, depth in depths.items()}
    groups = [
        {
            "params": [parameter for name, parameter in model.named_parameters() if scales[name] == scale],
            "lr_scale": scale,
        }
        for scale in dict.fromkeys(scales.values())
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, weight_decay=training.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group the scheduled rate, times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def freeze(model: nn.Module, depths: Mapping[str, int], frozen: bool) -> None:
    """Freezes or thaws all but the top layer; what is frozen gets no gradient and no weight decay."""
    top = max(depths.values())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or depths[name] == top)


def rest(model: nn.Module, depths: Mapping[str, int]) -> None:
    """Drops the gradients of all but the top layer: the same as if it had been frozen, where that can't be changed."""
    top = max(depths.values())
    for name, parameter in model.named_parameters():
        if depths[name] < top:
            parameter.grad = None


def state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """The optimizer's state by the names of the parameters: `exp_avg/<name>` and the like."""
    return {
        f"{key}/{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `state_tensors`. Raises KeyError on a name that the model has not."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    number = {name: position for position, name in enumerate(order)}
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        slot, _, name = key.partition("/")
        entries.setdefault(number[name], {})[slot] = value
    complete = optimizer.state_dict()
    complete["state"] = entries
    optimizer.load_state_dict(complete)
