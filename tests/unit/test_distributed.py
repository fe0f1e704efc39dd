import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from helpers import distributed


def test_alone_a_process_has_the_whole_of_everything():
    rows = torch.arange(5)
    assert distributed.processes() == 1
    assert distributed.is_first()
    assert distributed.is_first_here()
    assert torch.equal(distributed.share(rows), rows)
    assert torch.equal(distributed.gather(rows, 5), rows)
    assert torch.equal(distributed.total(rows), rows)
    assert distributed.uniform(3, 2, device=torch.device("cpu")).shape == (3, 2)
    module = nn.Linear(2, 2)
    assert distributed.parallel(module) is module
    assert distributed.start(torch.device("cpu")) == torch.device("cpu")


def test_layers_see_whole_batches_only_for_a_while():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), StochasticDepth(0.5, "row"))
    kinds = [type(layer) for layer in network.modules()]
    with distributed.whole_batches(network):
        assert {type(layer).__name__ for layer in network.modules()} >= {"_BatchNorm", "_Dropout", "_StochasticDepth"}
    assert [type(layer) for layer in network.modules()] == kinds


def test_norms_over_processes_are_exact_far_from_zero(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed, "total", lambda sums: sums)  # the other process has nothing
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 1000
    usual, own = nn.BatchNorm2d(3), distributed._BatchNorm(3)
    for layer in (usual, own):
        layer.running_mean.fill_(999.0)
    torch.testing.assert_close(own(images), usual(images), atol=1e-3, rtol=0)
    torch.testing.assert_close(own.running_mean, usual.running_mean)
    torch.testing.assert_close(own.running_var, usual.running_var)


def test_dropout_keeps_the_mean_and_drops_its_share():
    torch.manual_seed(0)
    layer = distributed._Dropout(0.25)
    values = layer(torch.ones(200, 300))
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(layer.eval()(values), values)


def test_each_image_meets_the_same_chance_however_many_processes_share_the_batch(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed, "total", lambda count: torch.tensor(5))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "share", lambda rows, rank=rank: rows.tensor_split(2)[rank])
        torch.manual_seed(0)
        parts.append(distributed.uniform((3, 2)[rank], 4, device=torch.device("cpu")))
    torch.manual_seed(0)
    torch.testing.assert_close(torch.cat(parts), torch.rand(5, 4))


def test_dropout_that_drops_nothing_draws_nothing():
    values, state = torch.ones(2, 3), torch.get_rng_state()
    for layer in (distributed._Dropout(0.0), distributed._StochasticDepth(0.0, "row")):
        assert layer(values) is values
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_of_a_sum_are_those_of_all_processes(monkeypatch):
    monkeypatch.setattr(distributed, "total", lambda values: 2 * values)
    values = torch.ones(3, requires_grad=True)
    distributed._Total.apply(values).sum().backward()
    assert values.grad.tolist() == [2, 2, 2]


def test_stochastic_depth_drops_whole_images():
    torch.manual_seed(0)
    dropped = distributed._StochasticDepth(0.5, "row")(torch.ones(64, 2, 3, 3)).flatten(1)
    assert (dropped == dropped[:, :1]).all()
    assert dropped[:, 0].unique().tolist() == [0, 2]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="a GPU of its own, and there are 2: --nproc-per-node 2"):
        distributed.start(torch.device("cuda"))
