import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from helpers import checks
from helpers.archives import Archive, write_zip
from helpers.layouts import read_layout


def drawing(seed, size=(120, 80)):
    """A picture like no other: large blotches of random gray."""
    blotches = np.random.default_rng(seed).integers(0, 256, (6, 9), np.uint8)
    return Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC).convert("RGB")


def jpeg(image, quality=95):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def voc(*boxes, width=120, height=80, extra=""):
    things = "".join(
        f"<object><name>damage</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for a, b, c, d in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"{extra}<annotation>{size}{things}</annotation>".encode()


@pytest.fixture
def check(tmp_path):
    """Checks these files besides six good photos; the usable table and the findings as {source: (problem, action)}."""

    def run(**files):
        good = {f"{label}/{index}.jpg": jpeg(drawing(seed)) for seed, (label, index) in enumerate(GOOD)}
        members = good | {name.replace("__", "/").replace("_jpg", ".jpg"): data for name, data in files.items()}
        members = {name.replace("_xml", ".xml"): data for name, data in members.items()}
        with Archive(write_zip(tmp_path / "raw.zip", members.items())) as archive:
            table, findings = checks.check_photos(archive, read_layout(archive.names)[0])
        return table, dict(
            zip(findings["source"], zip(findings["problem"], findings["action"], strict=True), strict=True)
        )

    return run


GOOD = [(label, index) for label in ("a", "b") for index in (1, 2, 3)]


def test_good_photos_pass_without_a_finding(check):
    table, findings = check()
    assert findings == {}
    assert table["source"].tolist() == [f"{label}/{index}.jpg" for label, index in GOOD]
    assert table[["width", "height"]].drop_duplicates().values.tolist() == [[120, 80]]
    assert table["group"].nunique() == 6
    assert not table["annotated"].any()


def test_a_broken_photo_is_left_out_and_the_rest_goes_on(check):
    table, findings = check(a__empty_jpg=b"", a__text_jpg=b"hello", b__half_jpg=jpeg(drawing(9))[:800])
    assert len(table) == 6
    assert findings["a/empty.jpg"] == ("empty file", checks.LEFT_OUT)
    assert findings["a/text.jpg"][0].startswith("not an image")
    assert findings["b/half.jpg"][0].startswith("truncated or damaged")


def test_an_unusual_photo_is_corrected_and_said(check):
    gray = io.BytesIO()
    drawing(9).convert("L").save(gray, "PNG")
    table, findings = check(a__gray_jpg=gray.getvalue())
    assert len(table) == 7
    assert findings["a/gray.jpg"][1] == checks.CORRECTED


def test_the_same_file_twice_is_kept_once(check):
    table, findings = check(a__copy_jpg=jpeg(drawing(0)))
    assert findings == {"a/copy.jpg": ("the same photo as a/1.jpg", checks.LEFT_OUT)}
    assert "a/copy.jpg" not in table["source"].tolist()


def test_the_same_file_under_two_labels_is_left_out_of_both(check):
    table, findings = check(b__copy_jpg=jpeg(drawing(0)))
    reason = ("the same photo stands under two labels: a/1.jpg, b/copy.jpg", checks.LEFT_OUT)
    assert findings == {"a/1.jpg": reason, "b/copy.jpg": reason}
    assert len(table) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.resize((300, 200)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    ],
    ids=["encoded anew", "resized", "darker", "with less contrast"],
)
def test_a_changed_copy_shares_the_group_of_its_original(change, check):
    table, findings = check(a__copy_jpg=jpeg(change(drawing(0)), quality=60))
    group = table.set_index("source")["group"]
    assert group["a/copy.jpg"] == group["a/1.jpg"]
    assert group.nunique() == 6
    assert findings == {"a/copy.jpg": ("looks the same as a/1.jpg", checks.GROUPED)}


def test_a_changed_copy_under_another_label_is_pointed_out(check):
    _, findings = check(b__copy_jpg=jpeg(drawing(0), quality=60))
    assert findings["b/copy.jpg"][0] == "looks the same as a/1.jpg, but one is 'a' and one 'b': look at them"


def test_a_change_in_a_corner_makes_another_photo(check):
    other = drawing(0)
    other.paste((255, 0, 0), (90, 50, 120, 80))
    table, findings = check(a__other_jpg=jpeg(other))
    assert findings == {}
    assert table["group"].nunique() == 7


def test_two_plain_surfaces_look_the_same_whatever_their_noise():
    noise = [np.random.default_rng(seed).integers(126, 131, (80, 120), np.uint8) for seed in (0, 1)]
    thumbs = np.stack([checks._thumb(Image.fromarray(surface)) for surface in noise])
    assert checks._near_duplicates(thumbs) == [(0, 1)]


def test_boxes_are_read_scaled_and_clipped():
    assert checks.read_boxes(voc((10, 20, 30, 40)), 120, 80) == [["damage", 10, 20, 30, 40]]
    assert checks.read_boxes(voc((10, 20, 30, 40), width=60, height=40), 120, 80) == [["damage", 20, 40, 60, 80]]
    assert checks.read_boxes(voc((-5, 70, 500, 90)), 120, 80) == [["damage", 0, 70, 120, 80]]
    assert checks.read_boxes(voc((130, 0, 140, 10)), 120, 80) == []  # wholly outside
    assert checks.read_boxes(voc(), 120, 80) == []


ENTITIES = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "data",
    [b"<annotation>", b"not xml", voc((1, "x", 3, 4)), voc((1, 2, 3, 4), extra=ENTITIES)],
    ids=["cut off", "text", "no number", "hostile entity"],
)
def test_what_is_no_annotation_is_refused(data):
    with pytest.raises(ValueError, match="not a Pascal VOC annotation"):
        checks.read_boxes(data, 120, 80)


def test_boxes_of_another_photo_are_not_used_and_the_photo_stays(check):
    table, findings = check(a__9_jpg=jpeg(drawing(9)), a__9_xml=voc((1, 2, 3, 4), width=100, height=100))
    problem, action = findings["a/9.jpg"]
    assert problem == "boxes not used: made for a photo of 100 x 100 px, this one is 120 x 80"
    assert action == checks.KEPT
    assert table.set_index("source")["boxes"]["a/9.jpg"] == []


def test_an_annotated_photo_keeps_its_boxes(check):
    table, _ = check(a__9_jpg=jpeg(drawing(9)), a__9_xml=voc((1, 2, 30, 40)))
    row = table.set_index("source").loc["a/9.jpg"]
    assert row["boxes"] == [["damage", 1, 2, 30, 40]]
    assert row["annotated"]


def test_an_item_under_two_labels_is_left_out(tmp_path):
    names = [
        f"{label}/{view}/{serial}_{view}.jpg" for label in ("a", "b") for view in ("x", "y") for serial in (1, label)
    ]
    members = [(name, jpeg(drawing(seed))) for seed, name in enumerate(names)]
    with Archive(write_zip(tmp_path / "raw.zip", members)) as archive:
        table, findings = checks.check_photos(archive, read_layout(archive.names)[0])
    assert sorted(table["item"].unique()) == ["a", "b"]
    assert set(findings["problem"]) == {"its item stands under two labels"}
    assert table.groupby("item")["group"].nunique().tolist() == [1, 1]  # the views of an item stay together


def test_threaded_keeps_the_order_and_runs_only_a_little_ahead():
    started = []

    def work(number):
        started.append(number)
        return number * number

    results = checks.threaded(work, range(100), ahead=5)
    assert next(results) == 0
    assert len(started) <= 7
    assert list(results) == [number * number for number in range(1, 100)]
