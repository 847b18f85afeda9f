"""The target of a run that landscope 0.1 made: all its numbers are exact in float32."""

import torch
from torch import Tensor, nn

import landscope as ls


def numbers(*shape: int, modulus: int) -> Tensor:
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 5 % modulus - modulus // 2) / 8).reshape(shape)


def make() -> ls.Objective:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            parameter.copy_(numbers(*parameter.shape, modulus=7 + 2 * k))
    data = numbers(30, 4, modulus=23), torch.arange(30) % 3
    return ls.Objective(model, nn.CrossEntropyLoss(), data)
