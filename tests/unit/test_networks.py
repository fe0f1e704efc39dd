import os
import re
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision

from helpers import networks, stages
from helpers.networks import WeightsError

HEADS = {  # one architecture of each family, and the layer that gives its logits
    "small_cnn": "18",
    "resnet18": "fc",
    "efficientnet_b0": "classifier.1",
    "mobilenet_v3_large": "classifier.3",
    "mobilenet_v2": "classifier.1",
    "vgg16": "classifier.6",
    "squeezenet1_1": "classifier.1",
    "densenet121": "classifier",
    "convnext_tiny": "classifier.2",
    "vit_b_16": "heads.head",
    "swin_t": "head",
    "shufflenet_v2_x0_5": "fc",
    "googlenet": "fc",
    "inception_v3": "fc",
    "mnasnet0_5": "classifier.1",
}


class Harmful:
    """What a hostile pickle does when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module", params=HEADS)
def built(request):
    """(architecture, network with 3 classes) without memory behind it, so that large ones are built at once."""
    with torch.device("meta"):
        return request.param, networks.build(request.param, 3, "none")


@pytest.fixture
def small():
    torch.manual_seed(0)
    return networks.build("small_cnn", 2, "none")


def same(network, other, *, but=""):
    """Whether two networks hold the same bits, leaving out one layer."""
    own, others = network.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(
        torch.equal(own[name], others[name]) for name in own if not (but and name.startswith(f"{but}."))
    )


def test_every_family_gets_a_new_head_with_one_logit_a_class(built):
    architecture, network = built
    assert stages.head_name(network) == HEADS[architecture]
    images = torch.empty(2, 3, 224, 224, device="meta")
    assert network.eval()(images).shape == (2, 3)
    assert network.train()(images).shape == (2, 3)  # one output in training too


def test_every_family_takes_back_its_tensors_without_versions(built):
    _, network = built
    networks.load_state(network, dict(network.state_dict()))  # as safetensors and checkpoints give them
    with pytest.raises(RuntimeError, match=stages.head_name(network)):
        networks.load_state(network, {f"other.{name}": value for name, value in network.state_dict().items()})


def test_freezing_leaves_only_the_head_of_every_family_to_learn(built):
    _, network = built
    networks.freeze(network, train="head")
    head = sum(parameter.numel() for parameter in stages.head_of(network).parameters())
    assert networks.count_parameters(network, trainable=True) == head
    networks.freeze(network, train="all")
    assert networks.count_parameters(network, trainable=True) == networks.count_parameters(network) > head


def test_an_unknown_architecture_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet19': did you mean 'resnet18'\? There are small_cnn, .*vit_b_16"):
        networks.build("resnet19", 2, "none")


def test_the_small_network_has_the_parameters_one_can_count(small):
    convolutions, norms, head = 27 * 16 + 144 * 32 + 288 * 64 + 576 * 128, 2 * (16 + 32 + 64 + 128), 128 * 2 + 2
    assert networks.count_parameters(small) == convolutions + norms + head == 97_938
    assert small.eval()(torch.zeros(1, 3, 16, 16)).shape == (1, 2)


def test_input_size_is_as_wanted_but_for_networks_that_take_one_only():
    with torch.device("meta"):
        transformer, maxvit = (networks.build(name, 2, "none") for name in ("vit_b_16", "maxvit_t"))
    other = networks.build("squeezenet1_1", 2, "none")
    assert networks.input_size(transformer, 90, 160) == (224, 224)
    assert networks.input_size(maxvit, 90, 160) == (224, 224)
    assert networks.input_size(other, 90, 160) == (90, 160)
    assert other.training


@pytest.mark.parametrize(("architecture", "px"), [("squeezenet1_1", 8), ("densenet121", 16), ("small_cnn", 0)])
def test_a_size_at_which_nothing_is_left_to_pool_is_refused(architecture, px):
    with pytest.raises(ValueError, match=f"{px} x {px} px do not suit "):
        networks.input_size(networks.build(architecture, 2, "none"), px, px)


def test_half_precision_weights_load_as_float_all_but_the_head(small, tmp_path):
    torch.save({name: tensor.half() for name, tensor in small.state_dict().items()}, tmp_path / "half.pth")
    loaded = networks.build("small_cnn", 3, str(tmp_path / "half.pth"))
    rounded = {name: tensor.half().to(tensor.dtype) for name, tensor in small.state_dict().items()}
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == rounded[name].dtype
        assert name.startswith("18.") or torch.equal(tensor, rounded[name])
    assert stages.head_of(loaded).out_features == 3


def test_safetensors_fill_all_but_the_head(small, tmp_path):
    safetensors.torch.save_file(small.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    loaded = networks.build("small_cnn", 2, str(tmp_path / "weights.safetensors"))
    assert same(loaded, small, but="18")
    assert not torch.equal(stages.head_of(loaded).weight, stages.head_of(small).weight)


def test_older_files_without_batch_counters_fit(small, tmp_path):
    state = {name: tensor for name, tensor in small.state_dict().items() if "num_batches_tracked" not in name}
    torch.save(state, tmp_path / "old.pth")
    assert same(networks.build("small_cnn", 2, str(tmp_path / "old.pth")), small, but="18")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("4.weight"), r"lack '4\.weight' and 0 more"),
        (lambda state: state.update({"more.bias": torch.zeros(1)}), r"have unknown 'more\.bias' and 0 more"),
        (lambda state: state.update({"4.weight": torch.zeros(1)}), r"have another shape of '4\.weight' and 0 more"),
        (lambda state: state.clear(), r"lack '0\.weight' and 19 more"),  # 4 convolutions, 4 norms of 4 tensors each
    ],
)
def test_weights_that_do_not_fit_are_refused_by_the_name_of_a_tensor(small, tmp_path, change, message):
    state = dict(small.state_dict())
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=rf"other\.pth weights of small_cnn do not fit: they {message}"):
        networks.build("small_cnn", 2, str(tmp_path / "other.pth"))


def test_a_pickle_with_code_is_refused_and_its_code_never_runs(tmp_path):
    torch.save({"0.weight": Harmful(str(tmp_path / "harm"))}, tmp_path / "hostile.pth")
    with pytest.raises(WeightsError, match=r"hostile\.pth cannot be read as a state dict"):
        networks.build("small_cnn", 2, str(tmp_path / "hostile.pth"))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(3), "a dict of names and tensors$"),
        ([torch.zeros(3)], "a dict of names and tensors$"),
        ({0: torch.zeros(3)}, "a dict of names and tensors$"),
        ({"epoch": 3, "model": {"a": torch.zeros(3)}}, "it holds others, under 'model'. Save one of them alone$"),
    ],
    ids=["tensor", "list", "numbers", "checkpoint"],
)
def test_a_file_that_holds_something_else_is_no_state_dict(tmp_path, content, reason):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=rf"other\.pth is no state dict, .*{reason}"):
        networks.build("small_cnn", 2, str(tmp_path / "other.pth"))


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_damaged_file_of_weights_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=f"{name} cannot be read as a state dict"):
        networks.build("small_cnn", 2, str(tmp_path / name))
    (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=f"{name} cannot be read as a state dict: [A-Z]"):
        networks.build("small_cnn", 2, str(tmp_path / name))


def test_a_missing_file_of_weights_is_answered_with_what_may_be_given():
    with pytest.raises(WeightsError, match=r"weights='imagnet' is no file: give \"imagenet\", \"none\" or the path"):
        networks.build("small_cnn", 2, "imagnet")


def test_imagenet_without_a_connection_says_what_to_do_and_gives_no_random_network(monkeypatch):
    def offline(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.ShuffleNet_V2_X0_5_Weights, "get_state_dict", offline)
    with pytest.raises(WeightsError, match=r"shufflenet_v2_x0_5 could not be fetched from https://.*no route.*path"):
        networks.build("shufflenet_v2_x0_5", 2, "imagenet")


def test_published_weights_that_expect_other_pixels_are_refused_and_all_others_expect_the_usual_ones():
    usual, others = networks.IMAGENET_NORMALIZATION, []
    for name in torchvision.models.list_models(module=torchvision.models):
        look = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        others += [name] * ((look.mean, look.std) != (usual["mean"], usual["deviation"]))
    assert others == ["efficientnet_v2_l"]
    with pytest.raises(WeightsError, match="The weights of efficientnet_v2_l expect pixels scaled in another way"):
        networks.build("efficientnet_v2_l", 2, "imagenet")


def test_the_largest_transformer_has_the_size_of_its_weights():
    with torch.device("meta"):
        network = networks.build("vit_h_14", 2, "none")
    published = torchvision.models.get_model_weights("vit_h_14").DEFAULT
    assert network.image_size == published.meta["min_size"][0]


def test_there_are_no_imagenet_weights_of_the_small_network():
    with pytest.raises(WeightsError, match='weights="none"'):
        networks.build("small_cnn", 2, "imagenet")


def test_published_weights_fill_all_but_the_head(monkeypatch):
    published = torchvision.models.shufflenet_v2_x0_5()
    state = published.state_dict()
    monkeypatch.setattr(torchvision.models.ShuffleNet_V2_X0_5_Weights, "get_state_dict", lambda *_, **__: state)
    loaded = networks.build("shufflenet_v2_x0_5", 2, "imagenet")
    assert stages.head_of(loaded).weight.shape == (2, 1024)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items() if name[:3] != "fc.")


@pytest.mark.parametrize(
    ("architecture", "now", "then"),
    [
        ("densenet121", r"(layer\d+)\.(norm|conv)(\d)\.", r"\1.\2.\3."),
        ("vit_b_16", r"\.mlp\.0\.", ".mlp.linear_1."),
        ("vit_b_16", r"\.mlp\.3\.", ".mlp.linear_2."),
    ],
)
def test_published_weights_with_the_names_of_older_torchvisions_fit(monkeypatch, architecture, now, then):
    with torch.device("meta"):
        state = torchvision.models.get_model(architecture).state_dict()
        renamed = {re.sub(now, then, name): tensor for name, tensor in state.items()}
        assert renamed.keys() != state.keys()
        weights = type(torchvision.models.get_model_weights(architecture).DEFAULT)
        monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: renamed)
        assert networks.build(architecture, 2, "imagenet").state_dict().keys() == state.keys()


@pytest.mark.parametrize("architecture", ["googlenet", "inception_v3"])
def test_networks_published_for_inputs_from_minus_1_to_1_get_them_so(architecture):
    with torch.device("meta"):
        network = networks.build(architecture, 2, "none")
    lowest = torch.tensor([(0 - mean) for mean in networks.IMAGENET_NORMALIZATION["mean"]]).view(1, 3, 1, 1)
    lowest = lowest / torch.tensor(networks.IMAGENET_NORMALIZATION["deviation"]).view(1, 3, 1, 1)
    assert network._transform_input(lowest).flatten().tolist() == pytest.approx([-1, -1, -1])


def test_frozen_batch_norm_keeps_its_statistics_bit_for_bit(small):
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    networks.freeze(small, train="head")
    networks.training_mode(small, keep_norms=False)
    small(torch.rand(4, 3, 16, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert stages.head_of(small).training
    assert not any(layer.training for layer in small[:-1])


def test_batch_norm_that_learns_counts_its_batches(small):
    networks.freeze(small, train="all")
    networks.training_mode(small, keep_norms=False)
    small(torch.rand(4, 3, 16, 16))
    assert small[1].num_batches_tracked == 1
    assert all(layer.training for stage in stages.stages(small).values() for layer in stage.modules())


def test_norms_that_are_kept_learn_their_scale_but_not_their_statistics(small):
    networks.freeze(small, train="all")
    networks.training_mode(small, keep_norms=True)
    small(torch.rand(4, 3, 16, 16)).sum().backward()
    assert small[1].num_batches_tracked == 0
    assert torch.equal(small[1].running_mean, torch.zeros(16))
    assert small[1].weight.grad is not None
    assert small[2].training


def test_a_copy_without_inplace_layers_leaves_the_network_as_it_was(network):
    copied = networks.without_inplace(network)
    assert (network[1].inplace, copied[1].inplace) == (True, False)
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(copied(images), network(images))
    assert copied[0].weight is not network[0].weight


def test_the_origin_names_the_file_by_its_digest(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"abc")
    assert networks.origin(str(path)) == (
        "mine.pth, sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert networks.origin("imagenet") == f"ImageNet, published with torchvision {torchvision.__version__}"
    assert networks.origin("none").startswith("none: random weights")
