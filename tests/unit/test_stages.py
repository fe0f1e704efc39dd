import pytest
import torch
from torch import nn

from helpers import networks, stages

FAMILIES = {  # one of each, at a size that it takes
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "small_cnn": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 64,
    "vit_b_16": 224,
}
IN_ONE_PIECE = {"googlenet"}


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def network(request):
    torch.manual_seed(0)
    network = networks.build(request.param, 3, "none").eval()
    network.tested_size, network.tested_name = FAMILIES[request.param], request.param
    return network


def image(network):
    return torch.randn(2, 3, network.tested_size, network.tested_size, generator=torch.Generator().manual_seed(0))


def test_the_stages_in_order_give_what_the_network_gives(network):
    values = image(network)
    with torch.no_grad():
        expected = network(values)
        for stage in stages.stages(network).values():
            values = stage(values)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_every_weight_belongs_to_one_stage_and_is_shared_with_the_network(network):
    parts = stages.stages(network).values()
    held = [id(parameter) for part in parts for parameter in part.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())


def test_the_head_is_the_layer_of_the_logits_and_the_stages_count_up_to_it(network):
    parts = stages.stages(network)
    *names, last = parts
    assert last == "head"
    assert names == [f"stage {number}" for number in range(1, len(names) + 1)]
    assert len(names) == 1 if network.tested_name in IN_ONE_PIECE else len(names) >= 3
    assert parts["head"][0].weight.shape[0] == 3  # classes
    assert parts["head"][0].weight is stages.head_of(network).weight


def test_what_enters_the_head_is_one_vector_an_image(network):
    frozen, _ = stages.split(network, "head")
    with torch.no_grad():
        assert frozen(image(network)).flatten(1).shape == (
            2,
            stages.head_of(network).weight.shape[1],
        )


@pytest.mark.parametrize(
    ("train", "learning"),
    [("head", ["head"]), ("last stage", ["stage 4", "head"]), ("stage 3", ["stage 3", "stage 4", "head"])],
)
def test_what_learns_is_everything_from_a_stage_on(train, learning):
    network = networks.build("small_cnn", 2, "none")
    parts = stages.stages(network)
    networks.freeze(network, train=train)
    assert [name for name, part in parts.items() if all(one.requires_grad for one in part.parameters())] == learning
    assert sum(parameter.requires_grad for parameter in network.parameters()) == sum(
        len([*parts[name].parameters()]) for name in learning
    )


def test_all_leaves_nothing_frozen():
    frozen, learning = stages.split(networks.build("small_cnn", 2, "none"), "all")
    assert len(frozen) == 0
    assert len(learning) == 5


def test_an_unknown_part_names_those_there_are():
    with pytest.raises(ValueError, match=r"no stage 'stage 9' .* one of stage 1, .*stage 4, head, last stage, all"):
        stages.split(networks.build("small_cnn", 2, "none"), "stage 9")


def test_a_stage_begins_where_a_layer_steps_and_ends_where_one_pools():
    step, pool, plain = nn.Conv2d(3, 3, 3, stride=2), nn.MaxPool2d(2), nn.Conv2d(3, 3, 3)
    assert stages._by_size([plain, step, plain, pool, plain, pool]) == [[plain], [step, plain, pool], [plain, pool]]
