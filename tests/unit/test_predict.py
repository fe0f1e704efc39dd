import base64
import copy
import io
import math
import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import noise, small

from helpers import cards, crops, images, inference, items, networks, predict
from helpers.archives import ArchiveError
from helpers.items import item_and_view
from helpers.photos import encode, shrink

CPU = torch.device("cpu")
PLAIN = {  # what the card of a network says that needs nothing special
    **{
        "architecture": "small_cnn",
        "views": [""],
        "temperature": 1.0,
        "threshold": 0.0,
        "stored": None,
        "backgrounds": {},
        "fusing": {},
        "unrolled": {},
    },
    **{"mirrored": False, "novelty_thresholds": {}},
}
SAVED = PLAIN | {  # and one that can be loaded
    **{"format_version": cards.FORMAT_VERSION, "classes": ["blue", "red"]},
    **{"input": {"height": 16, "width": 16}, "normalization": networks.IMAGENET_NORMALIZATION},
}


@pytest.fixture
def model(network, halves):
    card = {"classes": ["blue", "red"], "input": {"height": 4, "width": 4}, "normalization": halves}
    return cards.Model(
        network,
        card | PLAIN,
    )


def photo(color):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), color).save(buffer, "PNG")
    return buffer.getvalue()


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(pixels):
    return base64.b64encode(encode(Image.fromarray(pixels))).decode()


def test_answers_name_the_class_and_what_cannot_be_read(model):
    given = [("sky.png", photo((0, 0, 255))), ("notes.png", b"text"), ("rose.png", photo((255, 0, 0)))]
    table = predict.answers(model, given, CPU)
    assert table.columns.tolist() == ["name", "answer", "confidence", "blue", "red", "remark", "problem"]
    assert table["answer"].tolist() == ["blue", "", "red"]
    sure = 1 / (1 + math.exp(-2))
    assert table["confidence"].tolist() == pytest.approx([sure, math.nan, sure], nan_ok=True)
    assert table["blue"].tolist() == pytest.approx([sure, math.nan, 1 - sure], nan_ok=True)
    assert table["problem"].tolist() == [
        "",
        "not an image, or of a kind that is not supported: save it as JPEG or PNG",
        "",
    ]


def test_below_the_threshold_the_answer_is_not_sure(model):
    model.card.update(threshold=0.9)  # it is sure by 0.88
    sky = [("sky.png", photo((0, 0, 255)))]
    table = predict.answers(model, sky, CPU)
    assert table["answer"].tolist() == [predict.NOT_SURE]
    model.card.update(threshold=table["confidence"][0])  # which is sure enough, for a photo as for an item
    assert predict.answers(model, sky, CPU)["answer"].tolist() == ["blue"]
    assert predict.decide({"one": model}, sky, CPU)["answer"].tolist() == ["blue"]


def test_the_card_says_whether_a_photo_is_looked_at_twice():
    card = PLAIN | {"classes": ["a", "b"], "input": {"height": 16, "width": 16}, "mirrored": True}
    card |= {"normalization": networks.IMAGENET_NORMALIZATION}
    picture = noise(1)
    model = cards.Model(small(), card)
    table = predict.answers(model, [("noise.png", png(picture[0].permute(1, 2, 0).numpy()))], CPU)
    expected = inference.probabilities(model, picture, np.arange(1), CPU)
    np.testing.assert_allclose(table[["a", "b"]], expected, atol=1e-6)
    once = inference.probabilities(model._replace(card=card | {"mirrored": False}), picture, np.arange(1), CPU)
    assert abs(once - expected).max() > 1e-4


def test_the_temperature_divides_the_logits(model):
    model.card.update(temperature=2.0)
    table = predict.answers(model, [("sky.png", photo((0, 0, 255)))], CPU)
    assert table["blue"].tolist() == pytest.approx([1 / (1 + math.exp(-1))])


def test_photos_are_taken_as_they_come_and_in_batches(model, monkeypatch):
    monkeypatch.setattr(predict, "_BATCH_SIZE", 2)
    taken = []

    def photos():
        for number in range(5):
            taken.append(number)
            yield f"{number}.png", photo((0, 0, 255) if number % 2 else (255, 0, 0))

    assert predict.answers(model, photos(), CPU)["answer"].tolist() == ["red", "blue", "red", "blue", "red"]
    assert taken == [0, 1, 2, 3, 4]
    assert len(predict.answers(model, [], CPU)) == 0


@pytest.fixture
def knowing(model):
    """It learned from blue images alone."""
    blue = torch.tensor([[0.0, 1]]).half()
    return cards.Model(model.network, model.card | {"novelty_thresholds": {"": 0.9}}, {"": blue})


def test_what_is_unlike_all_that_was_learned_from_has_a_remark(knowing):
    given = [("sky.png", photo((0, 0, 255))), ("notes.png", b"text"), ("rose.png", photo((255, 0, 0)))]
    table = predict.answers(knowing, given, CPU)
    assert table["remark"].tolist() == ["", "", predict.UNFAMILIAR]
    assert table["answer"].tolist() == ["blue", "", predict.NOT_SURE]
    items = predict.decide({"knowing": knowing}, given, CPU)
    assert items[["item", "answer"]].to_numpy().tolist() == [
        ["rose.png", predict.NOT_SURE],
        ["sky.png", "blue"],
        ["notes.png", ""],
    ]


def test_data_of_other_classes_are_refused(model):
    cards.check_classes(model.card, ["blue", "red"])
    with pytest.raises(ValueError, match="The network knows blue, red; the data has cat, dog"):
        cards.check_classes(model.card, ["cat", "dog"])
    with pytest.raises(ValueError, match="The network knows blue, red; the data has red, blue"):  # another order
        cards.check_classes(model.card, ["red", "blue"])


VIEWS = ["side", "top"]
BLUE_PHOTO, RED_PHOTO = photo((0, 0, 255)), photo((255, 0, 0))
ALSO_BLUE = photo((0, 100, 255))  # another picture; the network is blind to green
SURE = 1 / (1 + math.exp(-2))


@pytest.fixture
def line(model):
    """A network for two views, with a decision on red."""
    decision = {"defect": "red", "views": ["side", "top"], "pass_below": 0.2, "reject_from": 0.8}
    model.card.update(views=["side", "top"], decision=decision, chosen=True)
    return {"both": model}


def test_the_views_of_an_item_are_fused_and_acted_upon(line):
    photos = [
        ("side/1.png", BLUE_PHOTO),
        ("a/2_side.png", RED_PHOTO),
        ("top/1.png", BLUE_PHOTO),
        ("a/2_top.png", ALSO_BLUE),
    ]
    table = predict.decide(line, photos, CPU)
    assert table["item"].tolist() == ["1", "2"]
    assert table["photos"].tolist() == [2, 2]
    assert table["action"].tolist() == ["pass", "inspect"]
    assert table["remark"].tolist() == ["", ""]
    assert table["red"].tolist() == pytest.approx([1 - SURE, 0.5])


def test_views_count_by_the_weights_of_the_card(line):
    photos = [("2_side.png", RED_PHOTO), ("2_top.png", BLUE_PHOTO)]
    line["both"].card["fusing"] = {"side": 1.0, "top": 0.0}
    assert predict.decide(line, photos, CPU)["red"].tolist() == pytest.approx([1 / (1 + math.exp(-1))])  # half the logs


@pytest.fixture
def belt(line):
    """(180, 320, 3): the belt before the side camera, against which things are cut out of side views."""
    pixels = np.full((180, 320, 3), 90, np.uint8)
    pixels[:, ::7] = 110
    cut = crops.Background(pictures=[jpeg(pixels)], roughly=False, straighten=False)
    line["both"].card["backgrounds"] = {"side": cut}
    return pixels


@pytest.fixture
def carton(belt):
    """A blue carton on it."""
    seen = belt.copy()
    seen[60:100, 200:240] = (0, 0, 255)
    return seen


def test_a_photo_is_cut_out_around_the_thing_as_in_training(line, carton):
    found = {}
    for name, backgrounds in (("whole", {}), ("cut out", line["both"].card["backgrounds"])):
        line["both"].card["backgrounds"] = backgrounds
        found[name] = predict.decide(line, [("1_side.png", png(carton))], CPU)["blue"][0]
    assert found["cut out"] > found["whole"] + 0.2
    other = predict.decide(line, [("1_top.png", png(carton))], CPU)  # a view without a background stays whole
    assert other["blue"][0] == pytest.approx(found["whole"])


def test_what_is_cut_out_has_the_proportions_of_the_input(line, carton):
    card = line["both"].card | {"input": {"height": 40, "width": 80}}
    crop = crops.crop_of(Image.fromarray(carton), card["backgrounds"]["side"], 2.0)
    seen = predict._seen("1_side.png", png(carton), card)
    assert torch.equal(seen.pixels, images.resize(Image.fromarray(carton), 40, 80, crop))


@pytest.mark.parametrize("dark", [False, True])
def test_where_no_item_is_found_a_hand_looks(dark, line, belt, carton):
    photos = [("1_side.png", png(carton)), ("1_top.png", BLUE_PHOTO)]
    photos += [("2_side.png", png(belt * 0 if dark else belt)), ("2_top.png", ALSO_BLUE)]
    table = predict.decide(line, photos, CPU)
    assert table["action"].tolist() == ["pass", "inspect"]
    assert table["remark"].tolist() == ["", "side: no item is found (is the belt empty, the camera dark or moved?)"]
    assert table["answer"].tolist() == ["blue", predict.NOT_SURE]


@pytest.fixture
def unrolling_line(line, monkeypatch):
    """The same, which unrolls side views: red photos to red pictures, and there is no box in others."""
    card, views = line["both"].card, ["side", "side unrolled", "top"]
    card.update(views=views, unrolled={"side unrolled": {"view": "side"}})
    card["decision"]["views"] = views

    def unroll(photos, how):
        assert how == {"view": "side"}
        return [Image.new("RGB", (8, 4), "red") if one.getpixel((0, 0))[0] > 200 else None for one in photos]

    monkeypatch.setattr(predict, "unroll", unroll)
    return line


def test_what_is_unrolled_is_a_witness_more_and_no_photo_more(unrolling_line):
    photos = [("1_side.png", RED_PHOTO), ("1_top.png", BLUE_PHOTO)]
    table = predict.decide(unrolling_line, photos, CPU)
    assert table[["item", "photos", "remark"]].to_numpy().tolist() == [["1", 2, ""]]
    assert table["red"].tolist() == pytest.approx([1 / (1 + math.exp(-2 / 3))], abs=0.01)  # two of three say red


def test_an_item_with_no_box_of_the_kind_is_looked_at(unrolling_line):
    photos = [("1_side.png", BLUE_PHOTO), ("1_top.png", BLUE_PHOTO)]
    photos += [("side/2.png", RED_PHOTO), ("top/2.png", RED_PHOTO)]
    table = predict.decide(unrolling_line, photos, CPU)
    assert table["action"].tolist() == ["inspect", "reject"]
    assert table["remark"].tolist() == [f"side unrolled cannot be read: {predict.NO_BOX}", ""]


def test_what_a_data_set_holds_unrolled_is_made_anew(unrolling_line):
    photos = [("1_side.png", RED_PHOTO), ("1_side unrolled.png", BLUE_PHOTO), ("1_top.png", RED_PHOTO)]
    table = predict.decide(unrolling_line, photos, CPU)
    assert table[["photos", "action", "remark"]].to_numpy().tolist() == [[2, "reject", ""]]


@pytest.mark.parametrize("known", ["side", "side unrolled"])
def test_a_specialist_alone_answers_its_own_view(known, unrolling_line):
    unrolling_line["both"].card.update(views=[known], decision=None)
    photos = [("1_side.png", RED_PHOTO), ("1_side unrolled.png", BLUE_PHOTO)]
    table = predict.decide(unrolling_line, photos, CPU)
    facts = ["item", "photos", "answer", "remark", "problem"]
    assert table[facts].to_numpy().tolist() == [["1", 1, "red", "", ""]]


def test_of_what_cannot_be_read_nothing_is_unrolled(unrolling_line):
    photos = [("1_side.png", b"text"), ("1_top.png", BLUE_PHOTO), ("2.png", BLUE_PHOTO)]
    photos += [("3_side.png", ArchiveError("it is damaged")), ("3_top.png", ALSO_BLUE)]
    table = predict.decide(unrolling_line, photos, CPU).set_index("item")
    assert table["action"].tolist() == ["inspect"] * 3
    assert table.loc["1", "remark"].startswith("side unrolled is missing, side cannot be read: not an image")
    assert table.loc["3", "remark"] == "side unrolled is missing, side cannot be read: it is damaged"
    assert "name it serial_side or serial_top, or" in table.loc["2.png", "problem"]


def test_a_photo_is_shrunk_first_as_those_were_that_were_learned_from(line):
    seen = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    shrunk = np.asarray(shrink(Image.fromarray(seen), 6, 8))
    line["both"].card["stored"] = {"height": 6, "width": 8}
    found, expected = (predict.decide(line, [("1_side.png", png(one))], CPU)["blue"][0] for one in (seen, shrunk))
    assert found == expected
    line["both"].card["stored"] = None
    assert predict.decide(line, [("1_side.png", png(seen))], CPU)["blue"][0] != expected


@pytest.mark.parametrize("name", ["1_r\u00fcck.png", "1_ru\u0308ck.png", "ru\u0308ck/1.png"])
def test_accents_may_be_written_in_one_character_or_two(name, model):
    model.card.update(views=["r\u00fcck"])
    assert predict.decide({"one": model}, [(name, RED_PHOTO)], CPU)["item"].tolist() == ["1"]


def test_what_cannot_be_read_has_a_row_with_the_reason(line):
    table = predict.decide(line, [("1_side.png", RED_PHOTO), ("2_side.png", b"text")], CPU)
    reason = "side: not an image, or of a kind that is not supported: save it as JPEG or PNG"
    assert table["item"].tolist() == ["1", "2"]
    assert table["action"].tolist() == ["inspect", "inspect"]
    assert table["problem"].tolist() == ["", reason]
    only = predict.decide(line, [("2_side.png", b"text")], CPU)
    assert only["action"].tolist() == ["inspect"]
    assert only.columns.tolist() == table.columns.tolist()
    assert only["problem"].tolist() == [reason]


def test_an_item_without_a_usable_photo_has_one_row_under_its_serial(line):
    photos = [("1_side.png", b""), ("2_side.png", BLUE_PHOTO), ("2_top.png", BLUE_PHOTO)]
    photos += [("1_top.png", ArchiveError("it is damaged"))]
    table = predict.decide(line, photos, CPU)
    facts = ["item", "photos", "answer", "action", "remark", "problem"]
    assert table[facts].to_numpy().tolist() == [
        ["2", 2, "blue", "pass", "", ""],
        ["1", 0, "", "inspect", "", "side: empty file; top: it is damaged"],
    ]
    assert table.loc[1, ["confidence", "blue", "red"]].isna().all()


def test_an_item_with_a_photo_that_cannot_be_read_has_one_row_and_is_inspected(line):
    photos = [("1_side.png", BLUE_PHOTO), ("1_top.png", b"")]
    photos += [(f"2_{view}.png", ALSO_BLUE) for view in ("side", "top")] + [("top/2.png", b"")]
    table = predict.decide(line, photos, CPU)
    assert table[["item", "photos", "answer", "action", "remark", "problem"]].to_numpy().tolist() == [
        ["1", 1, "blue", "inspect", "top cannot be read: empty file", ""],
        ["2", 2, "blue", "inspect", "2 photos of top, top cannot be read: empty file", ""],
    ]


def test_photos_of_one_serial_in_several_folders_are_not_taken_for_one_item(line):
    photos = [("day1/1_side.png", BLUE_PHOTO), ("day2/1_top.png", BLUE_PHOTO)]
    photos += [("day1/2_side.png", ALSO_BLUE), ("day2/side/2.png", b""), ("day1/2_top.png", ALSO_BLUE)]
    table = predict.decide(line, photos, CPU)
    assert table[["item", "answer", "action", "remark"]].to_numpy().tolist() == [
        ["1", predict.NOT_SURE, "inspect", items.APART],
        ["2", predict.NOT_SURE, "inspect", f"2 photos of side, side cannot be read: empty file, {items.APART}"],
    ]
    del line["both"].card["decision"]
    assert predict.decide(line, photos[:2], CPU)["answer"].tolist() == [predict.NOT_SURE]


@pytest.mark.parametrize(
    "names",
    [
        ("x/1_side.png", "x/1_top.png"),
        ("side/1.png", "top/1.png"),
        ("x/Side/1_side.png", "x/top/1_top.png"),
        ("x/side/1.png", "x/1_top.png"),
        ("side/x/1_side.png", "top/x/1_top.png"),
    ],
)
def test_folders_that_are_named_after_the_views_are_one(names, line):
    table = predict.decide(line, [(name, BLUE_PHOTO) for name in names], CPU)
    assert table[["item", "photos", "action", "remark"]].to_numpy().tolist() == [["1", 2, "pass", ""]]


def test_an_item_that_was_not_seen_once_in_each_view_is_inspected(line):
    names = ["1_side.png", "2_side.png", "2_top.png", "day1/3_side.png", "day2/3_side.png", "3_top.png"]
    names += [f"day{day}/4_{view}.png" for day in (1, 2) for view in ("side", "top")]
    photos = [(name, photo((0, int(item_and_view(name, set(VIEWS))[0]), 255))) for name in names]
    table = predict.decide(line, photos, CPU).set_index("item")
    assert table["remark"].to_dict() == {
        "1": "top is missing",
        "2": "",
        "3": f"2 photos of side, {items.APART}",
        "4": f"2 photos of side, 2 photos of top, {items.APART}",
    }
    assert table["action"].to_dict() == {"1": "inspect", "2": "pass", "3": "inspect", "4": "inspect"}


def test_what_the_archive_cannot_give_has_a_row_with_the_reason(line):
    table = predict.decide(line, [("1_side.png", RED_PHOTO), ("2_side.png", ArchiveError("it is damaged"))], CPU)
    assert table["problem"].tolist() == ["", "side: it is damaged"]


@pytest.mark.parametrize("name", ["1_SIDE.png", "Side/1.png", "x/1_Side.png"])
def test_the_view_is_known_in_capitals_too(name, line):
    assert predict.decide(line, [(name, BLUE_PHOTO)], CPU)[["item", "answer"]].to_numpy().tolist() == [["1", "blue"]]


def test_of_views_that_end_alike_the_longer_one_is_meant(line):
    line["both"].card["views"] = ["side", "left_side"]
    table = predict.decide(line, [("1_side.png", BLUE_PHOTO), ("1_left_side.png", RED_PHOTO)], CPU)
    assert table[["item", "photos"]].to_numpy().tolist() == [["1", 2]]


@pytest.mark.parametrize("name", ["notes.txt", "1_side.txt", "side/1.txt"])
def test_what_is_no_photo_is_not_asked_for_its_view_and_stands_under_its_name(name, line):
    table = predict.decide(line, [(name, ArchiveError("no photo by its name"))], CPU)
    facts = ["item", "problem", "action"]
    assert table[facts].to_numpy().tolist() == [[name, "no photo by its name", "inspect"]]


def test_a_photo_of_an_unknown_view_is_inspected(line):
    table = predict.decide(line, [("1-side.png", BLUE_PHOTO)], CPU)
    assert table["action"].tolist() == ["inspect"]
    assert table["problem"].tolist() == [
        "its view is not known: name it serial_side or serial_top, or put it into a folder named after the view"
    ]


def test_an_item_that_is_unlike_all_that_was_learned_from_is_inspected_however_sure_the_answer(line, knowing):
    card = line["both"].card | {"novelty_thresholds": {"side": 0.9, "top": 0.9}}
    line = {"both": knowing._replace(card=card, features=dict.fromkeys(("side", "top"), knowing.features[""]))}
    photos = [
        ("1_side.png", BLUE_PHOTO),
        ("1_top.png", BLUE_PHOTO),
        ("2_side.png", ALSO_BLUE),
        ("2_top.png", RED_PHOTO),
    ]
    table = predict.decide(line, photos, CPU)
    assert table["action"].tolist() == ["pass", "inspect"]
    assert table["remark"].tolist() == ["", f"top: {predict.UNFAMILIAR}"]


def test_a_photo_without_a_number_has_a_problem_and_the_others_their_answers(line, monkeypatch):
    def overflowing(pixels, views):
        logits = torch.stack([torch.full((len(views),), 3.0), pixels[:, 0].amax((1, 2)) * torch.inf], 1)
        return logits, [False] * len(views)

    monkeypatch.setattr(predict.novelty, "answering", lambda model, device: overflowing)
    line["both"].card["normalization"] = {"mean": [0.5] * 3, "deviation": [1.0] * 3}  # blue -inf, red inf
    photos = [(f"{item}_{view}.png", data) for item, data in (("1", BLUE_PHOTO), ("2", RED_PHOTO)) for view in VIEWS]
    table = predict.decide(line, photos, CPU)
    assert table["action"].tolist() == ["pass", "inspect"]
    assert table["problem"].tolist() == ["", f"side: {predict.NO_NUMBER}; top: {predict.NO_NUMBER}"]


def test_what_was_unrolled_is_not_shrunk_as_photos_are(line):
    card = line["both"].card | {"stored": {"height": 8, "width": 8}, "unrolled": {"top": {"view": "side"}}}
    stripes = np.zeros((4, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    card["input"] = {"height": 4, "width": 64}
    seen = {view: predict._seen(f"1_{view}.png", png(stripes), card).pixels.float() for view in VIEWS}
    assert seen["top"].std() == pytest.approx(100, abs=1)
    assert seen["side"].std() < 10


def test_a_camera_that_shows_one_picture_again_and_again_is_noticed(line):
    photos = [(f"{item}_side.png", photo((0, item, 255))) for item in range(3)]
    photos += [(f"{item}_top.png", photo((0, 9 if item else 8, 255))) for item in range(3)]
    table = predict.decide(line, photos, CPU)
    assert table["action"].tolist() == ["pass", "inspect", "inspect"]
    assert table["remark"].tolist() == ["", *[f"top: {items.REPEATED}"] * 2]
    del line["both"].card["decision"]  # copies of a photo are no fault where nothing is decided
    assert predict.decide(line, photos, CPU)["remark"].tolist() == ["", "", ""]


def test_of_several_things_in_a_photo_none_is_passed(line, carton):
    two = carton.copy()
    two[70:100, 205:240] = (0, 100, 255)
    two[60:90, 80:120] = (255, 0, 0)
    photos = [
        ("1_side.png", png(carton)),
        ("1_top.png", BLUE_PHOTO),
        ("2_side.png", png(two)),
        ("2_top.png", ALSO_BLUE),
    ]
    table = predict.decide(line, photos, CPU)
    assert table["action"].tolist() == ["pass", "inspect"]
    assert table["remark"].tolist() == ["", f"side: {predict.NOT_ALONE}"]


def test_two_networks_for_the_same_photos_are_refused(line):
    with pytest.raises(ValueError, match=r"both, other answer the same photos: choose one of them \(--network\)"):
        predict.decide(line | {"other": line["both"]}, [("1_side.png", BLUE_PHOTO)], CPU)


@pytest.mark.parametrize("together", [1, 8])
def test_each_specialist_answers_its_own_view(model, monkeypatch, together):
    contrary = copy.deepcopy(model.network)
    contrary[4].weight.data.neg_()
    members = {"side": model._replace(card=model.card | {"views": ["side"]})}
    members["top"] = cards.Model(contrary, model.card | {"views": ["top"]})
    monkeypatch.setattr(predict, "_BATCH_SIZE", together)
    photos = [(f"{number}_{view}.png", BLUE_PHOTO) for number, view in ((1, "side"), (2, "top"))]
    assert predict.decide(members, photos, CPU)["answer"].tolist() == ["blue", "red"]


def test_each_specialist_sees_its_own_view(model, monkeypatch):
    monkeypatch.setattr(predict, "_BATCH_SIZE", 1)
    members = {
        view: cards.Model(model.network, model.card | {"views": [view], "input": {"height": px, "width": px}})
        for view, px in (("side", 4), ("top", 6))
    }
    asked, answered = [], predict._answered

    def asking(batch, run, card, device):
        asked.extend((*card["views"], seen.name, len(seen.pixels[0])) for seen in batch if seen.pixels is not None)
        return answered(batch, run, card, device)

    monkeypatch.setattr(predict, "_answered", asking)
    table = predict.decide(
        members, [("1_side.png", BLUE_PHOTO), ("1_top.png", BLUE_PHOTO), ("odd.png", BLUE_PHOTO)], CPU
    )
    assert asked == [("side", "1_side.png", 4), ("top", "1_top.png", 6)]
    assert table["problem"].str.startswith("its view is not known").tolist() == [False, True]


def test_a_specialist_alone_does_not_decide_what_was_to_be_decided_by_all_views(line, model):
    side = cards.Model(model.network, model.card | {"views": ["side"]})
    table = predict.decide({"side": side}, [("1_side.png", BLUE_PHOTO)], CPU)
    assert table[["answer", "action", "remark"]].to_numpy().tolist() == [["blue", "inspect", "top is missing"]]


def test_without_views_each_photo_is_an_item_and_without_a_decision_there_is_no_action(model):
    table = predict.decide({"plain": model}, [("x/1_side.png", BLUE_PHOTO), ("y/1_top.png", RED_PHOTO)], CPU)
    assert table["item"].tolist() == ["x/1_side.png", "y/1_top.png"]
    assert table["answer"].tolist() == ["blue", "red"]
    assert table["action"].tolist() == ["", ""]


def test_the_chosen_network_is_taken_and_else_all(line, model):
    other = cards.Model(model.network, model.card | {"chosen": False})
    assert list(cards.chosen(line | {"other": other})) == ["both"]
    assert list(cards.chosen({"other": other})) == ["other"]


def test_networks_that_are_named_are_all_taken_the_chosen_one_or_not(tmp_path, monkeypatch):
    models = {name: cards.Model(small(), SAVED | {"chosen": name == "first"}) for name in ("first", "second")}
    cards.save_models(tmp_path / "models.zip", models, pd.DataFrame())
    paths = [str(tmp_path / "models.zip"), str(tmp_path), "--output", str(tmp_path / "decisions.csv")]
    monkeypatch.setattr("sys.argv", ["helpers.predict", *paths, "--network", "first", "second", "--device", "cpu"])
    with pytest.raises(SystemExit, match="first, second answer the same photos: choose one of them"):
        predict.main()


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command on these photos, name: bytes, and returns the path of its table."""

    def run(photos, output="decisions.csv", **facts):
        torch.manual_seed(0)
        cards.save_models(tmp_path / "models.zip", {"small": cards.Model(small(), SAVED | facts)}, pd.DataFrame())
        (tmp_path / "photos").mkdir(exist_ok=True)
        for name, data in photos.items():
            (tmp_path / "photos" / name).write_bytes(data)
        paths = [str(tmp_path / "models.zip"), str(tmp_path / "photos"), "--output", str(tmp_path / output)]
        monkeypatch.setattr("sys.argv", ["helpers.predict", *paths, "--device", "cpu"])
        predict.main()
        return tmp_path / output

    return run


def test_the_command_writes_a_table_and_says_how_fast_it_was(command, tmp_path, capsys):
    output = command({"1.png": BLUE_PHOTO, "2.png": RED_PHOTO, "3.png": b"text"})
    printed = capsys.readouterr().out
    assert "2 photos of 2 items in " in printed
    assert "images a second" in printed
    assert f"Photos: {tmp_path / 'photos'}\n" in printed
    assert "No answer for 3.png: not an image" in printed
    assert "Answers: 2 sure, 0 not sure, 1 without one" in printed
    assert "No actions: this network has no decision by cost, which 02-ModelTraining makes for a defect" in printed
    assert pd.read_csv(output)["item"].tolist() == ["1.png", "2.png", "3.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"models.zip", "photos", "decisions.csv"}


def test_the_command_counts_the_actions(command, capsys):
    decision = {"defect": "red", "views": [], "pass_below": 0.0, "reject_from": 0.0}  # all that can be read
    command({"1.png": BLUE_PHOTO, "2.png": RED_PHOTO, "3.png": b"text"}, decision=decision)
    printed = capsys.readouterr().out
    assert "Inspect 3.png: not an image" in printed
    assert "Actions: 0 pass, 1 inspect, 2 reject" in printed


def test_the_command_counts_items_and_not_files(command, capsys):
    decision = {"defect": "red", "views": ["side", "top"], "pass_below": 0.0, "reject_from": 0.0}
    photos = {"1_side.png": BLUE_PHOTO, "1_top.png": b"", "2_side.png": b"", "2_top.png": b""}
    command(photos, decision=decision, views=["side", "top"])
    printed = capsys.readouterr().out
    assert "1 photos of 1 items in " in printed
    assert "Inspect 2: side: empty file; top: empty file" in printed
    assert "Look at 1: top cannot be read: empty file" in printed
    assert "Actions: 0 pass, 2 inspect, 0 reject" in printed
    command(photos, views=["side", "top"])
    assert "Answers: 1 sure, 0 not sure, 1 without one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ({"test": {"known": 12, "missed": 1}}, "In its test, 12 red items: 1 passed (0.01 to 0.35 of such items)\n"),
        (
            {"test": {"known": 40, "missed": 0, "different": 8}},
            "In its test, 40 red items: 0 passed (0.00 to 0.32 of such items)\n",
        ),
        ({"test": {"known": 0, "missed": 0}}, "In its test, no red items: what share of them it passes is not known\n"),
        ({}, ""),
    ],
    ids=["some", "of items that look the same", "none", "a network that was not chosen"],
)
def test_the_command_says_how_much_the_decision_missed_in_its_test(test, told, command, capsys):
    decision = {"defect": "red", "views": [], "pass_below": 0.5, "reject_from": 0.5} | test
    command({"1.png": BLUE_PHOTO}, decision=decision)
    printed = capsys.readouterr().out
    assert told in printed
    assert ("In its test" in printed) == bool(told)


TESTED = {"tested": 22, "accuracy": 0.55, "accuracy low": 0.35, "accuracy high": 0.73}


@pytest.mark.parametrize(
    ("metrics", "views", "told"),
    [
        (TESTED | {"recall low": 0.51}, [""], "In its test, 22 answers: accuracy 0.55 (0.35 to 0.73)\n"),
        (
            TESTED | {"recall low": 0.5},  # of two classes
            [""],
            "In its test, 22 answers: accuracy 0.55 (0.35 to 0.73): it was not shown to be better than guessing\n",
        ),
        (
            [{"view": view, **TESTED, "tested": 20 + i, "recall low": 0.6} for i, view in enumerate(["top", "fused"])],
            ["side", "top"],
            "In its test, 21 answers: accuracy",
        ),
        (
            [{"view": view, **TESTED, "tested": 20 + i, "recall low": 0.6} for i, view in enumerate(["top", "fused"])],
            ["top"],
            "In its test, 20 answers: accuracy",
        ),
    ],
    ids=["better than guessing", "not shown to be", "of items", "of the one view"],
)
def test_the_command_says_how_the_network_did_in_its_test(metrics, views, told, command, capsys):
    command({"1_top.png": BLUE_PHOTO}, views=views, metrics=metrics)
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("metrics", [None, [], {"accuracy": 0.55}])
def test_of_a_test_that_the_card_does_not_hold_nothing_is_said(metrics, command, capsys):
    command({"1.png": BLUE_PHOTO}, metrics=metrics)
    assert "In its test" not in capsys.readouterr().out


def test_networks_that_were_never_tested_together_are_refused(line):
    model = line["both"]
    members = {
        name: model._replace(card=model.card | {"architecture": name, "views": [view]})
        for name, view in (("resnet18", "side"), ("vgg16", "top"))
    }
    with pytest.raises(ValueError, match=r"resnet18 and vgg16 were never tested together: choose one of them"):
        predict.decide(members, [], CPU)


def test_the_command_takes_photos_from_the_current_folder_alone(command, tmp_path, monkeypatch, capsys):
    for folder in ("project/photos", "project/new", "here"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "project" / "new" / "1.png").write_bytes(BLUE_PHOTO)
    monkeypatch.setattr(predict.session, "root", lambda: tmp_path / "project")
    command({"1.png": BLUE_PHOTO})
    arguments = list(sys.argv)
    arguments[2] = "new"
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SystemExit, match=f"{tmp_path}/here/new is missing: give the path of a photo, a folder or a"):
        predict.main()
    monkeypatch.chdir(tmp_path / "project")
    capsys.readouterr()
    predict.main()
    assert f"Photos: {tmp_path}/project/new\n" in capsys.readouterr().out
    arguments[2] = ""
    with pytest.raises(SystemExit, match="A path is empty"):
        predict.main()


def test_photos_at_an_address_are_asked_for_there(monkeypatch):
    assert predict._from_here("https://example.org/photos.zip") == "https://example.org/photos.zip"


def test_a_reader_who_goes_away_makes_no_failure_a_success(command, tmp_path, monkeypatch):
    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr(predict, "_tell", gone)
    with open(tmp_path / "log", "w") as log:
        monkeypatch.setattr(sys, "stdout", log)
        with pytest.raises(SystemExit, match="no photo could be used"):
            command({"1.png": b"text"})
        command({"1.png": BLUE_PHOTO})


def test_the_command_names_the_items_to_look_at(command, capsys):
    decision = {"defect": "red", "views": ["side", "top"], "pass_below": 0.0, "reject_from": 0.0}
    command({"1_side.png": BLUE_PHOTO}, decision=decision, views=["side", "top"])
    printed = capsys.readouterr().out
    assert "Look at 1: top is missing" in printed
    assert "Actions: 0 pass, 1 inspect, 0 reject" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_a_name_of_another_system_costs_no_table(command, capsys):
    odd, worse = (os.fsdecode(letter + b".png") for letter in (b"\xe9", b"\xea"))  # in Latin-1
    output = command({"1.png": BLUE_PHOTO, odd: RED_PHOTO, worse: b"text"})
    assert "No answer for \\udcea.png" in capsys.readouterr().out
    assert pd.read_csv(output)["item"].tolist() == ["1.png", "\\udce9.png", "\\udcea.png"]


def test_an_earlier_table_among_the_photos_is_no_photo(command):
    output = command({"1.png": BLUE_PHOTO, "decisions.csv": b"of yesterday"}, "photos/decisions.csv")
    assert pd.read_csv(output)["item"].tolist() == ["1.png"]


def test_where_no_photo_can_be_used_the_command_fails_and_the_table_says_why(command, tmp_path):
    with pytest.raises(SystemExit, match=r"no photo could be used: .*decisions\.csv says why"):
        command({"1.png": b"text"})
    assert pd.read_csv(tmp_path / "decisions.csv")["problem"].str.startswith("not an image").all()


def test_a_name_cannot_forge_a_line_of_the_log(command, capsys):
    command({"1.png": BLUE_PHOTO, "2\nActions: all passed\x1b[2K.png": b"text"})
    assert "No answer for 2\\nActions: all passed\\x1b[2K.png: not an image" in capsys.readouterr().out


def test_a_link_to_itself_costs_one_row_and_not_the_table(command, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "2.png").symlink_to("2.png")
    table = pd.read_csv(command({"1.png": BLUE_PHOTO}), dtype=str).set_index("item")
    assert table["answer"].isna().to_dict() == {"1.png": False, "2.png": True}


def test_where_the_memory_of_a_gpu_ends_the_command_says_what_to_do(command, monkeypatch):
    def ends(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(predict, "decide", ends)
    with pytest.raises(
        SystemExit, match=r"helpers\.predict: The GPU has too little memory for this: give --device cpu"
    ):
        command({"1.png": BLUE_PHOTO})


def test_where_no_table_can_be_written_no_photo_is_answered(command, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "decide", None)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"helpers\.predict: "):
        command({"1.png": BLUE_PHOTO}, "file/decisions.csv")


@pytest.mark.parametrize(
    ("photos", "output", "told"),
    [
        ("nowhere", "a.csv", "nowhere is missing"),
        ("empty", "a.csv", "empty holds no photo: nothing was written"),
        ("nowhere", "empty", "is a folder: give the path of a file in it"),
        ("empty", "empty", "is already an input or an output: give this result another path"),
        ("empty", "models.zip", "is already an input or an output: give this result another path"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong_and_leaves_nothing(
    photos, output, told, line, tmp_path, monkeypatch, capsys
):
    card = {"format_version": cards.FORMAT_VERSION, "architecture": "small_cnn"}
    cards.save_models(tmp_path / "models.zip", {"a": cards.Model(small(), line["both"].card | card)}, pd.DataFrame())
    (tmp_path / "empty").mkdir()
    paths = [str(tmp_path / "models.zip"), str(tmp_path / photos), "--output", str(tmp_path / output)]
    monkeypatch.setattr("sys.argv", ["helpers.predict", *paths, "--device", "cpu"])
    with pytest.raises(SystemExit) as stopped:
        predict.main()
    assert told in f"{stopped.value}{capsys.readouterr().err}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "models.zip"]
