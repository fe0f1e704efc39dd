import copy
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from helpers import compute, networks

CPU = torch.device("cpu")


def built(architecture):
    torch.manual_seed(0)
    network = networks.build(architecture, 3, "none")
    for layer in network.modules():  # statistics as of a trained network, or folding them would prove nothing
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return network


@pytest.mark.parametrize(
    "architecture", ["resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0", "googlenet", "three_blocks"]
)
def test_folding_norms_changes_the_layers_and_not_the_function(architecture):
    network, pixels = built(architecture).eval(), torch.randn(2, 3, 64, 64)
    folded = compute.fold_norms(copy.deepcopy(network))
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels), network(pixels), rtol=1e-3, atol=1e-4)
    norms = [sum(isinstance(layer, nn.BatchNorm2d) for layer in one.modules()) for one in (network, folded)]
    assert norms[1] < norms[0]


def test_a_network_whose_way_cannot_be_traced_stays_as_it_is():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, pixels):
            return self.norm(pixels) if pixels.sum() > 0 else pixels

    network = Branching().eval()
    assert compute.fold_norms(network) is network


@pytest.mark.parametrize("training", [True, False])
def test_inference_is_the_evaluation_of_the_network_and_leaves_it_alone(training):
    network, pixels = built("small_cnn").train(training), torch.randn(2, 3, 32, 32)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(pixels)
    torch.testing.assert_close(compute.as_function(network, CPU)(pixels), expected, rtol=1e-4, atol=1e-5)
    assert all(layer.training is training for layer in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.usefixtures("half_precision")
def test_a_cpu_with_bfloat16_computes_in_it():
    network = built("resnet18")
    with compute.autocast(network, CPU, learning=True):
        assert network(torch.randn(2, 3, 64, 64)).dtype == torch.bfloat16
    assert compute.as_function(network, CPU)(torch.randn(2, 3, 64, 64)).dtype == torch.float32


@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize(("learning", "expected"), [(True, torch.float32), (False, torch.bfloat16)])
def test_depth_wise_convolutions_learn_in_float32_on_a_cpu(learning, expected):
    network, found = built("mobilenet_v2"), []
    depth_wise = network.features[1].conv[0][0]
    depth_wise.register_forward_hook(lambda layer, inputs, output: found.append(output.dtype))
    with compute.autocast(network, CPU, learning=learning):
        assert network(torch.randn(2, 3, 64, 64)).dtype == torch.bfloat16
    assert found == [expected]
    assert type(depth_wise) is nn.Conv2d


def test_without_bfloat16_all_is_in_float32():
    network = built("resnet18")
    with compute.autocast(network, CPU, learning=True):
        assert network(torch.randn(2, 3, 64, 64)).dtype == torch.float32


@pytest.mark.parametrize(
    ("device", "expected"), [("cuda:0", torch.bfloat16), ("cuda:1", torch.float16)], ids=["new GPU", "old GPU"]
)
def test_a_gpu_takes_bfloat16_where_it_has_it_and_float16_elsewhere(device, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda asked: {0: (8, 0), 1: (7, 5)}[asked.index])
    assert compute.precision(torch.device(device)) == expected


def test_where_a_gpu_has_too_little_memory_the_message_says_what_helps():
    with pytest.raises(MemoryError, match=r"for this: take less$"), compute.enough_memory("take less"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_depth_wise_is_told_from_grouped_and_full():
    assert compute._is_depth_wise(nn.Conv2d(8, 8, 3, groups=8))
    assert not compute._is_depth_wise(nn.Conv2d(8, 8, 3, groups=2))
    assert not compute._is_depth_wise(nn.Conv2d(1, 8, 3))


def test_a_call_takes_the_median_of_nine_after_a_warm_up(monkeypatch):
    ends = [9.0, 0.2, 0.6, 0.4, 0.1, 0.5, 0.4, 0.3, 0.7, 0.4]  # the first is the warm-up
    clock = iter([reading for number, end in enumerate(ends) for reading in (10 * number, 10 * number + end)])
    monkeypatch.setattr(compute.time, "perf_counter", lambda: next(clock))
    calls = []
    assert compute.milliseconds(lambda: calls.append(1)) == pytest.approx(400)
    assert len(calls) == 10


def test_on_a_macs_gpu_memory_has_the_plain_order():
    orders = [compute.memory_format(torch.device(kind)) for kind in ("cpu", "cuda", "mps")]
    assert orders == [torch.channels_last, torch.channels_last, torch.contiguous_format]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in their own way")
def test_memory_given_back_serves_the_next_tensor():
    script = """
import resource, torch
from helpers import compute
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
compute.keep_memory()
for _ in range(5):  # the first few still find no place
    faults()
print(given_back, faults())
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    given_back, kept = map(int, printed.split())
    assert kept < given_back / 10


def test_what_goes_to_a_gpu_waits_for_nothing(monkeypatch):
    class Asked(torch.Tensor):
        pass

    asked = []
    monkeypatch.setattr(Asked, "to", lambda tensor, *args, **options: asked.append((*args, options)))
    monkeypatch.setattr(Asked, "pin_memory", lambda tensor: asked.append("pinned") or tensor)
    tensor, gpu, cpu = torch.zeros(2).as_subclass(Asked), torch.device("cuda"), torch.device("cpu")
    compute.to_device(tensor, gpu)
    compute.to_device(tensor, cpu)
    assert asked == ["pinned", (gpu, {"non_blocking": True}), (cpu, {})]
