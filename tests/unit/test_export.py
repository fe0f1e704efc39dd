import json

import numpy as np
import onnx
import pytest
import torch
from torchvision.models import VisionTransformer

from helpers import cards, export, images, networks, novelty

OLD = pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="its exporter needs a scale in every norm")
FAST_RESNET = pytest.param("fast_resnet", marks=OLD)
NORMALIZATION = {"mean": [0.4, 0.5, 0.6], "deviation": [0.2, 0.25, 0.3]}
CARD = {"input": {"height": 32, "width": 48}, "normalization": NORMALIZATION, "temperature": 1.7, "mirrored": False}


@pytest.fixture(scope="module", params=["small_cnn", FAST_RESNET, "mobilenet_v3_small"])
def model(request):
    torch.manual_seed(0)
    network = networks.build(request.param, 3, "none")
    return cards.Model(network.eval(), CARD)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export.to_onnx(model, tmp_path_factory.mktemp("onnx") / "deep" / "model.onnx")


def noise(count):
    return torch.randint(0, 256, (count, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_file_gives_the_probabilities_of_pytorch_for_any_number_of_images(model, exported):
    for count in (1, 35):
        checked = export.check(exported, model, noise(count), np.arange(count))
        assert checked.probabilities < 1e-5
        assert np.isnan(checked.similarity)  # it does not know what it learned from


def test_normalization_and_temperature_are_inside(model, exported):
    import onnxruntime

    pixels = noise(2).float()
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixels": pixels.numpy()})
    mean, deviation = (torch.tensor(NORMALIZATION[name]).view(1, 3, 1, 1) for name in ("mean", "deviation"))
    with torch.no_grad():
        expected = (model.network((pixels / 255 - mean) / deviation) / 1.7).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_both_looks_are_inside_where_the_card_says_so(tmp_path):
    import onnxruntime

    twice = cards.Model(networks.build("small_cnn", 3, "none").eval(), CARD | {"mirrored": True})
    path, pixels = export.to_onnx(twice, tmp_path / "twice.onnx"), noise(2)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found, of_mirrored = (session.run(None, {"pixels": one.float().numpy()})[0] for one in (pixels, pixels.flip(3)))
    np.testing.assert_allclose(found, of_mirrored, atol=1e-5)
    seen = images.normalize(pixels, **NORMALIZATION)
    with torch.no_grad():
        expected = ((twice.network(seen) + twice.network(seen.flip(3))) / 2 / CARD["temperature"]).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert export.check(path, twice, pixels, np.arange(2)).probabilities < 1e-5


@pytest.mark.parametrize("model", ["small_cnn", "mobilenet_v3_small"], indirect=True)  # one layer as its head, or two
def test_what_it_learned_from_is_inside_view_by_view(model, tmp_path):
    import onnxruntime

    images, views = noise(12), np.array(["side"] * 8 + ["top"] * 4)
    images[8:] //= 4  # the top view is darker
    model = cards.Model(model.network, CARD | {"views": ["side", "top"], "mirrored": True})
    knowing = novelty.fit(model, images, views, np.array([0, 1, 2, 8, 9]), np.array([3, 4, 10]), torch.device("cpu"))
    path = export.to_onnx(knowing, tmp_path / "knowing.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities", "similarity"]
    _, similarity = session.run(None, {"pixels": images.float().numpy()})
    learned = similarity[[0, 1, 2, 8, 9], [0, 0, 0, 1, 1]]
    np.testing.assert_allclose(learned, 1, atol=2e-3)  # each is the nearest to itself; they are kept in half precision
    assert (similarity[:8, 1] < 1 - 1e-4).all()
    checked = export.check(path, knowing, images, np.arange(12))
    assert max(checked.probabilities, checked.similarity) < 1e-5
    thresholds = np.array([knowing.card["novelty_thresholds"][view] for view in views])
    own = similarity[np.arange(12), (views == "top").astype(int)]
    _, unfamiliar = novelty.answers(knowing, images, views, np.arange(12), torch.device("cpu"))
    sure = np.abs(own - thresholds) > 1e-5
    assert sure.sum() >= 9
    assert ((own < thresholds) == unfamiliar)[sure].all()


@OLD
def test_a_transformer_takes_any_number_of_images_as_well(tmp_path):
    torch.manual_seed(0)
    shape = {"image_size": 32, "patch_size": 16, "num_layers": 4, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    network = VisionTransformer(**shape, num_classes=3).eval()
    model = cards.Model(network, CARD | {"input": {"height": 32, "width": 32}})
    path = export.to_onnx(model, tmp_path / "model.onnx")
    assert export.check(path, model, noise(5)[..., :32], np.arange(5)).probabilities < 1e-5


def test_its_opset_is_the_stated_one_and_all_is_in_one_file(exported):
    loaded = onnx.load(exported)
    assert {opset.domain: opset.version for opset in loaded.opset_import}[""] == export.OPSET
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install onnx"):
        export.to_onnx(cards.Model(torch.nn.Identity(), CARD), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_not_called_a_fault_of_the_exporter(model, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match=r"No space left on device: .*model\.onnx"):
        export.to_onnx(model, tmp_path / "model.onnx")


def test_a_network_that_cannot_be_exported_leaves_nothing_behind(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, images):
            return json.loads("[")

    network = torch.nn.Sequential(Odd(), torch.nn.Linear(1, 2))
    with pytest.raises(RuntimeError, match=r"cannot be written as ONNX: Expecting value.*\. Newer torch"):
        export.to_onnx(cards.Model(network, CARD), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["small_cnn"], indirect=True)
def test_the_check_notices_another_network(model, exported):
    other = model._replace(card=CARD | {"temperature": 1e-3})
    assert export.check(exported, other, noise(4), np.arange(4)).probabilities > 0.01


@pytest.mark.parametrize("model", ["small_cnn"], indirect=True)
def test_a_network_that_one_file_does_not_hold_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_MOST_BYTES", 1000)
    with pytest.raises(RuntimeError, match=r"one ONNX file holds no network of .* bytes: choose a smaller one"):
        export.to_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
