"""Muon: an optimizer that turns the filters of a network in all directions alike."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

_FILTER_RATE = 0.25  # of the learning rate, by which filters turn
_FILTER_MOMENTUM, _MOMENTUM = 0.6, 0.85
_QUINTIC = (3.4445, -4.7750, 2.0315)  # a polynomial that takes numbers from 0 to 1 near to 1, applied again and again
_ROUNDS = 3


class Muon(torch.optim.Optimizer):
    """Filters (O, I, h, w) turn, all other numbers take steps of stochastic gradient descent; with Nesterov's momentum.

    A gradient moves a matrix far in few directions and hardly at all in the others, which then learn late. So the step
    of each filter bank, as a matrix (O, I * h * w), is made nearly orthogonal, which gives all directions the same say,
    and as large as a quarter of the learning rate. Before each step the bank is brought to a length of the root of O,
    1 a filter on average: batch normalization must follow, for which that length has no meaning.
    weight_decay: of the other numbers. precision: in which steps are made orthogonal; bfloat16 is enough for it.
    Source: Jordan et al. (2024), Muon: An Optimizer for Hidden Layers in Neural Networks; Jordan (2024), airbench.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, *, weight_decay: float, precision: torch.dtype
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.dim() == 4:
                    direction = self._direction(parameter, parameter.grad, _FILTER_MOMENTUM).flatten(1)
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    turn = orthogonal(direction.to(self.precision)).view_as(parameter)
                    parameter.sub_(_FILTER_RATE * group["lr"] * turn)
                else:
                    slope = parameter.grad + group["weight_decay"] * parameter
                    parameter.sub_(group["lr"] * self._direction(parameter, slope, _MOMENTUM))

    def _direction(self, parameter: nn.Parameter, slope: torch.Tensor, momentum: float) -> torch.Tensor:
        """The slope, and with it those of the steps before, each counting less."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        gathered = state["momentum_buffer"]
        gathered.mul_(momentum).add_(slope)
        return slope + momentum * gathered


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """(rows, columns) with the directions of the matrix, and singular values near 1 where they were not near 0.

    The polynomial of a Newton-Schulz iteration needs products of matrices only.
    """
    first, third, fifth = _QUINTIC
    wide = len(matrix) <= matrix.shape[1]
    values = matrix if wide else matrix.T
    values = values / (values.norm() + 1e-7)  # now no singular value is above 1
    for _ in range(_ROUNDS):
        square = values @ values.T
        values = first * values + (third * square + fifth * square @ square) @ values
    return values if wide else values.T
