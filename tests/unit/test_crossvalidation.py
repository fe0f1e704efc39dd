import io
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import crossvalidation, images, recipes
from helpers.catalog import rows_where
from helpers.crossvalidation import Candidate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def many(make_dataset, tmp_path_factory):
    """Twelve red and nine blue items, seen from two sides."""
    generator, pictures = np.random.default_rng(0), []
    for label, count in (("blue", 9), ("red", 12)):
        for number in range(count):
            for view in ("side", "top"):
                picture = generator.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                picture[..., 0 if label == "red" else 2] += 120
                pictures.append((label, view, f"{label}{number}", "train", picture))
    return make_dataset(tmp_path_factory.mktemp("many") / "data.zip", pictures)


def test_every_item_is_tested_once_in_each_repeat_and_never_stands_in_two_splits(many):
    divided = list(crossvalidation.divide(many, 3, 2, seed=0))
    assert [(repeat, fold) for repeat, fold, _ in divided] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for repeat in (0, 1):
        catalogs = [data.catalog for number, _, data in divided if number == repeat]
        tested = np.concatenate([rows_where(one, split="test") for one in catalogs])
        assert sorted(tested) == list(range(len(many.catalog)))
    for _, _, data in divided:
        assert (data.catalog.groupby("item")["split"].nunique() == 1).all()
        counts = data.catalog.groupby(["split", "label"])["item"].nunique().unstack()
        assert (counts.loc["test"] == [3, 4]).all()  # stratified: 9 and 12 items in thirds
        assert (counts.loc["validation"] >= 1).all()
        assert (counts.loc["train"] >= [4, 6]).all()
    first, again = (divided[number][2].catalog["split"] == "test" for number in (0, 3))
    assert (first != again).any()


def test_items_that_look_the_same_are_never_tested_by_a_network_that_has_seen_one_of_them(many):
    alike = many.catalog["item"].where(~many.catalog["item"].isin(["red0", "red5", "red9"]), "red0")
    for _, _, data in crossvalidation.divide(many._replace(catalog=many.catalog.assign(group=alike)), 3, 2, seed=0):
        assert (data.catalog.groupby("group")["split"].nunique() == 1).all()


@pytest.mark.parametrize("folds", [2, 10])
def test_too_few_or_too_many_folds_are_refused_at_once(many, folds):
    with pytest.raises(ValueError, match=f"folds={folds} must be from 3 to 9"):
        crossvalidation.divide(many, folds, 1, seed=0)


def test_a_label_with_two_items_can_not_be_cross_validated(many):
    first = many.catalog.groupby("label")["group"].transform(lambda groups: groups.isin(groups.unique()[:2]))
    few = many._replace(catalog=many.catalog[first | (many.catalog["label"] == many.classes[1])])
    with pytest.raises(ValueError, match=f"The label '{many.classes[0]}' has 2 items .*: add photos, or set folds=0"):
        crossvalidation.divide(few, 3, 1, seed=0)


def test_items_that_look_the_same_may_leave_too_few_of_a_label_and_that_is_refused_at_once(many):
    few = many.catalog[many.catalog["item"].str.fullmatch("(red|blue)[0-2]")]  # three of each
    alike = few["item"].replace("blue0", "red0")
    with pytest.raises(ValueError, match=r"With folds=3, a label has too few items left.*or set folds=0"):
        crossvalidation.divide(many._replace(catalog=few.assign(group=alike)), 3, 1, seed=0)


def test_a_view_that_few_items_have_is_refused_at_once(many):
    rare = many.catalog[(many.catalog["view"] == "side") | many.catalog["item"].isin(["red0", "blue0"])]
    with pytest.raises(ValueError, match="With folds=3, the view 'top' is missing from a part, so few items have it"):
        crossvalidation.divide(many._replace(catalog=rare), 3, 1, seed=0)


def test_no_repeats_are_refused_at_once(many):
    with pytest.raises(ValueError, match="repeats=0 must be 1 or more"):
        crossvalidation.divide(many, 3, 0, seed=0)


def candidate(phases, **extras):
    return Candidate("small_cnn", "none", [["side", "top"]], recipes.Recipe(phases, 8, 0, **extras))


def answers(many, candidate, folder):
    pixels = images.load_images(many, 32, 32)
    with redirect_stdout(io.StringIO()) as printed:
        table = crossvalidation.predictions(candidate, many, pixels, CPU, folds=3, repeats=1, folder=folder)
    return table, printed.getvalue().splitlines()


def test_all_images_and_items_are_answered_by_networks_that_have_not_seen_them(many, tmp_path):
    table, lines = answers(many, candidate([recipes.Phase("head", "head", 1)]), tmp_path)
    assert table.groupby("view").size().to_dict() == {"side": 21, "top": 21, "fused": 21}
    assert set(table.loc[table["view"] != "fused", "path"]) == set(many.catalog["path"])
    assert (table["label"] == table["predicted"]).mean() > 0.8  # colors are told apart by any features
    assert sum("Running the frozen part once" in line for line in lines) == 1  # for all folds together
    assert table.groupby(["repeat", "fold"]).ngroups == 3
    assert (table.groupby("item")["fold"].nunique() == 1).all()


def test_shared_activations_give_what_each_fold_would_have_computed(many, tmp_path, monkeypatch):
    divisions = list(crossvalidation.divide(many, 3, 1, seed=0))
    monkeypatch.setattr(crossvalidation, "divide", lambda *_: iter(divisions[:1]))  # one fold tells
    phases = [recipes.Phase("head", "head", 1), recipes.Phase("tuned", "last stage", 2, 0.001)]
    shared, _ = answers(many, candidate(phases, copies=1), tmp_path / "a")
    monkeypatch.setattr(crossvalidation.activations, "fits", lambda *_: False)
    alone, lines = answers(many, candidate(phases, copies=1), tmp_path / "b")
    assert not any("Running the frozen part once" in line for line in lines)
    pd.testing.assert_frame_equal(shared, alone, rtol=1e-4, atol=1e-4)


def test_what_an_earlier_phase_changes_is_not_shared(many, tmp_path):
    pixels = images.load_images(many, 32, 32)
    head, tuned = recipes.Phase("head", "head", 1), recipes.Phase("tuned", "last stage", 1, 0.01)
    for phases, shared in (([head, tuned], {"head", "last stage"}), ([tuned, head], set())):
        way = candidate(phases, copies=1)
        assert set(crossvalidation._share(way, many, pixels, CPU, tmp_path)) == shared


def test_each_fold_is_looked_at_as_its_validation_items_say(many, tmp_path, monkeypatch):
    asked, probabilities = [], crossvalidation.inference.probabilities

    def noted(model, *what):
        asked.append(model.card["mirrored"])
        return probabilities(model, *what)

    def looks(model, pixels, rows, labels, device):
        better = crossvalidation.inference.Look(next(verdicts), probabilities(model, pixels, rows, device), 1.0, 0.5)
        return [better, better._replace(mirrored=not better.mirrored)]

    verdicts = iter([True, False, True])
    monkeypatch.setattr(crossvalidation.inference, "looks", looks)
    monkeypatch.setattr(crossvalidation.inference, "probabilities", noted)
    answers(many, candidate([recipes.Phase("head", "head", 1)]), tmp_path)
    assert asked == [True, False, True]


def test_temperature_and_weights_are_those_of_validation_items_and_used_on_the_tested_ones(many, tmp_path, monkeypatch):
    (_, _, divided), *_ = divisions = list(crossvalidation.divide(many, 3, 1, seed=0))
    monkeypatch.setattr(crossvalidation, "divide", lambda *_: divisions[:1])
    way, truths, weighed = candidate([recipes.Phase("head", "head", 1)]), [], []

    def tempered(temperature):
        monkeypatch.setattr(
            crossvalidation.calibration, "temperature", lambda _, labels: truths.append(labels.tolist()) or temperature
        )
        return answers(many, way, tmp_path / str(temperature))[0]

    def choose(table, *_):
        weighed.extend(table["path"])
        return {"side": 2.0, "top": 0.0}, {}  # twice its half of the sum of two logarithms: the side's answer as it is

    monkeypatch.setattr(crossvalidation.fusing, "choose", choose)
    plain, cooler = tempered(1.0), tempered(3.0)
    validating = rows_where(divided.catalog, split="validation")
    assert all(labels == many.labels()[validating].tolist() for labels in truths)
    assert set(weighed) == set(many.catalog["path"].iloc[validating])
    expected = crossvalidation.calibration.with_temperature(plain[many.classes].to_numpy(), 3.0)
    np.testing.assert_allclose(cooler[many.classes], expected, atol=1e-6)
    side, fused = (plain[plain["view"] == view].set_index("item")[many.classes] for view in ("side", "fused"))
    np.testing.assert_allclose(fused.loc[side.index], side, atol=1e-6)


def test_a_run_that_was_broken_off_trains_no_fold_twice(many, tmp_path, monkeypatch):
    way = candidate([recipes.Phase("tuned", "all", 1, 0.001)], keep_norms=False)
    first, _ = answers(many, way, tmp_path)
    assert len(list(tmp_path.glob("repeat-0-fold-*/*.safetensors"))) == 3
    monkeypatch.setattr(crossvalidation.training, "_learn", lambda *_: pytest.fail("it learned again"))
    again, _ = answers(many, way, tmp_path)
    pd.testing.assert_frame_equal(again, first)


def test_figures_are_those_of_each_fold_with_mean_and_spread():
    rows = [(0, 0, 1.0), (0, 0, 1.0), (0, 1, 0.0), (0, 1, 1.0), (1, 0, 0.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, 0.0)]
    table = pd.DataFrame(rows, columns=["repeat", "fold", "right"]).assign(view="side", label="a")
    table["predicted"] = np.where(table["right"] == 1, "a", "b")
    found = crossvalidation.figures(table)["side"]
    assert found.to_dict() == pytest.approx(
        {
            "repeat 1, fold 1": 1.0,
            "repeat 1, fold 2": 0.5,
            "repeat 2, fold 1": 0.5,
            "repeat 2, fold 2": 0.0,
            "mean": 0.5,  # of 0.75 and 0.25
            "spread": np.std([0.75, 0.25], ddof=1),
        }
    )
    uneven = crossvalidation.figures(table.iloc[:3])["side"]
    assert uneven["mean"] == pytest.approx(2 / 3)  # of all items, however many a fold has
    one = crossvalidation.figures(table[table["repeat"] == 0])["side"]
    assert one["spread"] == pytest.approx(np.std([1.0, 0.5], ddof=1))
