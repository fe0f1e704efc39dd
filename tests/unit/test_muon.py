import pytest
import torch
from torch import nn

from helpers import muon
from helpers.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 27), (27, 8)])
def test_all_directions_of_a_step_count_nearly_alike(shape):
    torch.manual_seed(0)
    matrix = torch.randn(*shape) @ torch.diag(torch.logspace(0, -1, shape[1]))  # unlike directions
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonal(matrix))
    assert before.max() / before.min() > 3
    assert after.min() > 0.5
    assert after.max() < 1.3


def test_an_orthogonal_step_keeps_the_signs_of_its_directions():
    """A diagonal matrix has its directions along the axes, so what is left of it are the signs."""
    made = orthogonal(torch.diag(torch.tensor([3.0, -2.0, 1.0])))
    torch.testing.assert_close(made, torch.diag(made.diag()), atol=0.02, rtol=0)
    assert made.diag().sign().tolist() == [1, -1, 1]


def test_filters_keep_their_length_and_turn_by_a_quarter_of_the_rate():
    filters = nn.Parameter(torch.full((4, 1, 2, 2), 5.0))
    filters.grad = torch.eye(4).view(4, 1, 2, 2)
    optimizer = Muon([filters], 0.4, weight_decay=9.0, precision=torch.float32)  # which is not theirs
    optimizer.step()
    unit = 2 / (5.0 * 4)  # the length of four filters is 2, and was that of 16 numbers of 5
    moved = 5.0 * unit - filters.detach().flatten(1)
    torch.testing.assert_close(moved, moved.diag().diag(), atol=0.002, rtol=0)
    torch.testing.assert_close(moved.diag(), torch.full((4,), 0.1 * orthogonal(torch.eye(4))[0, 0].item()))


def test_filters_have_a_momentum_of_their_own_and_come_back_to_their_length(monkeypatch):
    monkeypatch.setattr(muon, "orthogonal", lambda matrix: matrix)
    filters = nn.Parameter(torch.tensor([3.0, 4.0]).view(2, 1, 1, 1))
    optimizer = Muon([filters], 4.0, weight_decay=0.0, precision=torch.float32)  # a quarter of it is 1
    for slope in ([1.0, 0.0], [0.0, 1.0]):
        before = filters.detach() * 2**0.5 / filters.detach().norm()
        filters.grad = torch.tensor(slope).view_as(filters)
        optimizer.step()
    # the second slope, and 0.6 of what is gathered: 0.6 of the first, and the second
    torch.testing.assert_close((before - filters.detach()).flatten(), torch.tensor([0.36, 1.6]))


def test_other_numbers_take_steps_with_the_momentum_of_nesterov_and_decay():
    weight, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    expected = torch.optim.SGD([reference := nn.Parameter(torch.ones(2))], 0.1, 0.85, weight_decay=0.5, nesterov=True)
    optimizer = Muon([weight, idle], 0.1, weight_decay=0.5, precision=torch.float32)
    for slope in ([1.0, 2.0], [-3.0, 0.5], [0.0, 1.0]):
        weight.grad, reference.grad = torch.tensor(slope), torch.tensor(slope)
        optimizer.step()
        expected.step()
    torch.testing.assert_close(weight, reference)
    assert idle.item() == 1
