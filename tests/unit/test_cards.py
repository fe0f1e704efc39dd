import copy
import importlib.metadata
import json
import zipfile

import pandas as pd
import pytest
import safetensors.torch
import torch

from helpers import cards, networks
from helpers.archives import ArchiveError, sha256, write_zip


@pytest.fixture
def small():
    torch.manual_seed(0)
    return networks.build("small_cnn", 2, "none")


@pytest.fixture
def card(dataset):
    how = {"size": (20, 32), "weights": "none", "normalization": networks.IMAGENET_NORMALIZATION}
    return cards.new_card("small_cnn", dataset, views=["side", "top"], **how)


@pytest.fixture
def comparison():
    return pd.DataFrame({"accuracy side": [0.5, 0.75]}, index=pd.Index(["one", "two"], name="network"))


def replace_member(path, name, data):
    """The same archive with other bytes for one member."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    write_zip(path, (members | {name: data}).items())


def test_a_card_holds_what_the_line_needs_to_treat_photos_as_in_training(dataset):
    how = {"size": (20, 32), "weights": "none", "normalization": networks.IMAGENET_NORMALIZATION}
    treated = {"stored": {"height": 1, "width": 2}, "backgrounds": {"side": {"roughly": True}}, "unrolled": {"u": {}}}
    card = cards.new_card("small_cnn", dataset._replace(**treated), views=["side"], **how)
    assert {name: card[name] for name in treated} == treated


def test_a_card_says_what_the_network_is_and_on_what_data(card, dataset):
    assert card == {
        "format_version": 11,
        "architecture": "small_cnn",
        "classes": ["blue", "red"],
        "views": ["side", "top"],
        "input": {"height": 20, "width": 32},
        "normalization": {"mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225]},
        "origin": "none: random weights, trained from scratch",
        "temperature": 1.0,
        "threshold": 0.0,
        "stored": None,
        "backgrounds": {},
        "unrolled": {},
        "fusing": {},
        "mirrored": False,
        "novelty_thresholds": {},
        "data_sha256": sha256(dataset.path),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "pillow")},
    }


def test_a_network_comes_back_with_the_same_logits_and_card(small, card, comparison, tmp_path):
    small(torch.rand(4, 3, 16, 16))  # moves the statistics of its batch norms away from the start
    path = cards.save_models(tmp_path / "models.zip", {"one": cards.Model(small, card)}, comparison)
    loaded = cards.load_models(path)["one"]
    images = torch.rand(2, 3, 16, 16)
    assert not loaded.network.training
    assert torch.equal(loaded.network(images), small.eval()(images))
    assert loaded.card == card
    assert loaded.features == {}


@pytest.fixture
def knowing(small, card):
    """With the features of three images of one view, and of two without a view."""
    features = {"side": torch.rand(3, 128).half(), "": torch.rand(2, 128).half()}
    return cards.Model(small, card | {"novelty_thresholds": dict.fromkeys(features, 0.5)}, features)


def test_what_a_network_learned_from_comes_back_with_it(knowing, comparison, tmp_path):
    path = cards.save_models(tmp_path / "models.zip", {"one": knowing}, comparison)
    found = cards.load_models(path)["one"].features
    assert list(found) == ["side", ""]
    assert all(torch.equal(own, knowing.features[view]) for view, own in found.items())


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"side": torch.rand(3, 5).half()}, r"features of view 'side' are not \(M, 128\), or not finite"),
        (
            {"side": torch.full((3, 128), torch.nan).half()},
            r"features of view 'side' are not \(M, 128\), or not finite",
        ),
        ({"top": torch.rand(3, 128).half()}, r"one cannot be read \('view side'\)"),
    ],
)
def test_features_of_another_network_are_refused(small, card, comparison, tmp_path, features, message):
    model = cards.Model(small, card | {"novelty_thresholds": {"side": 0.5}}, features)
    path = cards.save_models(tmp_path / "models.zip", {"one": model}, comparison)
    with pytest.raises(ArchiveError, match=message):
        cards.load_models(path)


def test_an_archive_of_networks_holds_safetensors_cards_and_the_comparison_and_no_pickle(
    small, card, knowing, comparison, tmp_path
):
    models = {"one": cards.Model(small, card), "two": knowing._replace(card=knowing.card | {"views": ["top"]})}
    path = cards.save_models(tmp_path / "models.zip", models, comparison)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            "one/model.safetensors",
            "one/card.json",
            "two/model.safetensors",
            "two/card.json",
            "two/features.safetensors",
            "comparison.csv",
        ]
        assert json.loads(archive.read("two/card.json"))["views"] == ["top"]
        assert archive.read("comparison.csv") == b"network,accuracy side\none,0.5\ntwo,0.75\n"
        safetensors.torch.load(archive.read("one/model.safetensors"))


def test_networks_are_loaded_by_name(small, card, comparison, tmp_path):
    models = {name: cards.Model(small, card) for name in ("b", "a")}
    path = cards.save_models(tmp_path / "models.zip", models, comparison)
    assert list(cards.load_models(path)) == ["a", "b"]
    assert list(cards.load_models(path, ["b"])) == ["b"]
    with pytest.raises(ValueError, match=r"holds no network c; it holds a, b"):
        cards.load_models(path, ["a", "c"])


def test_the_same_networks_give_the_same_bytes(small, card, comparison, tmp_path):
    models = {"one": cards.Model(small, card)}
    first, again = (cards.save_models(tmp_path / name, models, comparison) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == again.read_bytes()
    with torch.no_grad():
        small[-1].bias += 1
    assert cards.save_models(again, models, comparison).read_bytes() != first.read_bytes()


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        ("card.json", b'{"format_version": 5}', r"^[^:]+: one has format 5, not 11: make it again, with the notebook"),
        ("card.json", b"[]", r"one cannot be read .*make it again, with the notebook that wrote it"),
        ("card.json", b"{", r"one cannot be read .*make it again, with the notebook that wrote it"),
        ("card.json", b'{"format_version": 11}', r"one cannot be read \('architecture'\)"),
        ("model.safetensors", b"no tensors", r"one cannot be read .*make it again, with the notebook that wrote it"),
        ("features.safetensors", b"no tensors", r"one cannot be read .*make it again, with the notebook that wrote it"),
        ("model.safetensors", safetensors.torch.save({"0.weight": torch.zeros(1)}), r"one cannot be read"),
    ],
)
def test_a_damaged_network_is_named(knowing, comparison, tmp_path, member, data, message):
    path = cards.save_models(tmp_path / "models.zip", {"one": knowing}, comparison)
    replace_member(path, f"one/{member}", data)
    with pytest.raises(ArchiveError, match=message):
        cards.load_models(path)


DECISION = {"defect": "blue", "views": [], "pass_below": 0.1, "reject_from": 0.9}


@pytest.mark.parametrize(
    ("facts", "wrong"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"classes": ["blue", "blue"]}, "classes"),
        ({"views": "side"}, "views"),
        ({"normalization": {"mean": [0.0] * 3, "deviation": [1.0, 1.0, 0.0]}}, "deviation"),
        ({"normalization": {"mean": [0.0, 0.0, float("nan")], "deviation": [1.0] * 3}}, "normalization"),
        ({"decision": {"defect": "blue"}}, "decision"),
        ({"decision": DECISION | {"defect": "torn"}}, "decision"),
        ({"decision": DECISION | {"test": {"known": 1, "missed": 2}}}, "test of the decision"),
        ({"decision": DECISION | {"test": {"known": 2, "missed": 1, "different": 3}}}, "test of the decision"),
        ({"input": {"height": 0, "width": 32}}, "input"),
        ({"input": {"height": 20.5, "width": 32}}, "input"),
        ({"threshold": -1.0}, "threshold"),
        ({"backgrounds": {"side": {"roughly": True, "straighten": False}}}, "backgrounds"),
        ({"backgrounds": {"side": {"pictures": [], "roughly": True, "straighten": False}}}, "backgrounds"),
        ({"stored": {"height": 10}}, "stored"),
        ({"unrolled": {"side unrolled": {"view": "side"}}}, "unrolled"),
        ({"fusing": []}, "fusing"),
    ],
)
def test_a_card_that_would_answer_wrongly_is_refused(small, card, comparison, tmp_path, facts, wrong):
    cards.save_models(tmp_path / "models.zip", {"one": cards.Model(small, card | facts)}, comparison)
    with pytest.raises(ArchiveError, match=rf"one cannot be read \({wrong} cannot be right\)"):
        cards.load_models(tmp_path / "models.zip")


@pytest.mark.parametrize("facts", [{"unrolled": []}, {"decision": ["blue"]}, {"backgrounds": []}, {"stored": 3}])
def test_a_part_of_a_card_of_another_kind_is_refused(small, card, comparison, tmp_path, facts):
    cards.save_models(tmp_path / "models.zip", {"one": cards.Model(small, card | facts)}, comparison)
    with pytest.raises(ArchiveError, match=r"one cannot be read .*make it again, with the notebook that wrote it"):
        cards.load_models(tmp_path / "models.zip")


@pytest.mark.parametrize("where", ["backgrounds", "unrolled"])
def test_a_card_whose_pictures_are_none_is_refused(small, card, comparison, tmp_path, where):
    background = {"pictures": ["JVBTLUFkb2Jl"], "roughly": True, "straighten": False}  # as a PostScript file begins
    unrolled = {"view": "side", "background": background, "box": {}, "usual": "JVBTLUFkb2Jl"}
    facts = (
        {"backgrounds": {"side": background}} if where == "backgrounds" else {"unrolled": {"side unrolled": unrolled}}
    )
    cards.save_models(tmp_path / "models.zip", {"one": cards.Model(small, card | facts)}, comparison)
    with pytest.raises(ArchiveError, match=r"one cannot be read \(not an image"):
        cards.load_models(tmp_path / "models.zip")


def test_weights_that_are_not_finite_and_a_card_that_lacks_something_are_refused(small, card, comparison, tmp_path):
    spoilt = copy.deepcopy(small)
    next(spoilt.parameters()).data[0] = torch.nan
    short = {name: value for name, value in card.items() if name != "mirrored"}
    for network, facts, said in ((spoilt, card, "weights cannot be right"), (small, short, "its card lacks mirrored")):
        cards.save_models(tmp_path / "models.zip", {"one": cards.Model(network, facts)}, comparison)
        with pytest.raises(ArchiveError, match=said):
            cards.load_models(tmp_path / "models.zip")


def test_an_archive_with_flipped_bits_is_refused(small, card, comparison, tmp_path):
    path = cards.save_models(tmp_path / "models.zip", {"one": cards.Model(small, card)}, comparison)
    data = bytearray(path.read_bytes())
    data[100_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"'one/model\.safetensors' is damaged"):
        cards.load_models(path)


def test_an_archive_without_a_network_says_where_they_are_made(dataset):
    with pytest.raises(ArchiveError, match="holds no network: give what 02-ModelTraining or one of 04 to 06 wrote"):
        cards.load_models(dataset.path)


def test_a_network_that_cannot_be_written_leaves_the_archive_before(small, card, comparison, tmp_path):
    path = cards.save_models(tmp_path / "models.zip", {"one": cards.Model(small, card)}, comparison)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        cards.save_models(path, {"one": cards.Model(small, card | {"odd": object()})}, comparison)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["models.zip"]


@pytest.mark.parametrize(
    ("digest", "seed", "came_divided", "expected"),
    [
        ("1", 0, False, ""),
        ("1", 5, True, ""),
        ("1", 5, False, "these images are divided with seed 5 and not 0"),
        ("2", 0, False, "these images are not those of the card"),
        ("2", 0, True, "these images are not those of the card"),
    ],
)
def test_a_test_that_the_network_may_have_learned_from_is_told(dataset, digest, seed, came_divided, expected):
    card = {"data_sha256": "1", "split": {"test_fraction": 0.2, "seed": 0}}
    split = {"test_fraction": 0.2, "seed": seed}
    assert cards.leak(card, dataset._replace(sha256=digest), split, came_divided=came_divided) == expected


def test_a_card_that_does_not_say_how_its_data_was_divided_is_no_proof(dataset):
    reason = cards.leak({"data_sha256": dataset.sha256}, dataset, {"seed": 0}, came_divided=False)
    assert reason == "these images are divided with seed 0 and not None"
