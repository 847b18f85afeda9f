"""A target of the command line: a network with batch norm for three classes of four numbers."""

import torch
from torch import Tensor, nn

import landscope as ls

CALLS: list[int] = []  # of a loss that counts


def model(width: int = 6, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3)
        ).eval()


def data(rows: int = 30) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(7)
    return torch.randn(rows, 4, generator=draws), torch.randint(3, (rows,), generator=draws)


def make(width: int = 6, seed: int = 0, rows: int = 30) -> ls.Objective:
    return ls.Objective(
        model(width, seed),
        nn.CrossEntropyLoss(),
        data(rows),
        metrics={"accuracy": ls.losses.accuracy},
    )
