import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from helpers import checks
from helpers.archives import Archive, write_zip
from helpers.layouts import read_layout
from helpers.splits import SplitError, assign_splits


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


def test_a_damaged_photo_is_left_out_and_damaged_boxes_cost_only_themselves(tmp_path):
    members = {f"{label}/{index}.jpg": jpeg(drawing(seed)) for seed, (label, index) in enumerate(GOOD)}
    data = bytearray(write_zip(tmp_path / "raw.zip", (members | {"b/2.xml": voc((1, 2, 30, 40))}).items()).read_bytes())
    for name in (b"a/1.jpg", b"b/2.xml"):
        data[data.index(name) + len(name) + 20] ^= 0xFF
    (tmp_path / "raw.zip").write_bytes(data)
    with Archive(tmp_path / "raw.zip") as archive:
        table, findings = checks.check_photos(archive, read_layout(archive.names)[0])
    assert table["source"].tolist() == [name for name in members if name != "a/1.jpg"]
    assert table["boxes"].tolist() == [[]] * 5
    photo, boxes = findings.itertuples(index=False)
    assert (photo.source, photo.action) == ("a/1.jpg", checks.LEFT_OUT)
    assert "damaged" in photo.problem
    assert (boxes.source, boxes.action) == ("b/2.jpg", checks.KEPT)
    assert boxes.problem.startswith("boxes not used: ")


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
    reason = ("the same photo appears under two labels: a/1.jpg, b/copy.jpg", checks.LEFT_OUT)
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


def test_of_several_look_alikes_the_one_of_another_label_is_told(tmp_path):
    names = ("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg")
    members = {name: jpeg(drawing(0), quality=50 + 10 * number) for number, name in enumerate(names)}
    with Archive(write_zip(tmp_path / "raw.zip", members.items())) as archive:
        _, findings = checks.check_photos(archive, read_layout(archive.names)[0])
    told = findings.set_index("source")["problem"]
    assert told["val/a/3.jpg"] == "looks the same as train/b/2.jpg, but one is 'b' and one 'a': look at them"


def test_a_change_in_a_corner_makes_another_photo(check):
    other = drawing(0)
    other.paste((255, 0, 0), (90, 50, 120, 80))
    table, findings = check(a__other_jpg=jpeg(other))
    assert findings == {}
    assert table["group"].nunique() == 7


def test_two_plain_surfaces_look_the_same_whatever_their_noise():
    noise = [np.random.default_rng(seed).integers(126, 131, (80, 120), np.uint8) for seed in (0, 1)]
    thumbs = np.stack([checks._thumb(Image.fromarray(surface)) for surface in noise])
    assert checks._near_duplicates(thumbs).tolist() == [[0, 1]]


def test_boxes_are_read_scaled_and_clipped():
    assert checks.read_boxes(voc((10, 20, 30, 40)), 120, 80) == [["damage", 10, 20, 30, 40]]
    assert checks.read_boxes(voc((10, 20, 30, 40), width=60, height=40), 120, 80) == [["damage", 20, 40, 60, 80]]
    assert checks.read_boxes(voc((-5, 70, 500, 90)), 120, 80) == [["damage", 0, 70, 120, 80]]
    assert checks.read_boxes(voc((130, 0, 140, 10)), 120, 80) == []  # wholly outside
    assert checks.read_boxes(voc(), 120, 80) == []


LAUGHS = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>'
ENTITIES = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "data",
    [
        b"<annotation>",
        b"not xml",
        voc((1, "x", 3, 4)),
        voc(("nan", 2, 3, 4)),
        voc((1, 2, "inf", 4)),
        b"<annotation><object><name>damage</name></object></annotation>",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
        b'<?xml version="1.0" encoding="klingon"?><annotation/>',
        voc((1, 2, 3, 4), extra=ENTITIES),
        voc((1, 2, 3, 4), extra=LAUGHS).replace(b"damage", b"&y;"),
    ],
    ids=[
        "cut off",
        "text",
        "no number",
        "nan",
        "infinite",
        "no corners",
        "something else",
        "encoding",
        "hostile entity",
        "many entities",
    ],
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


def test_a_file_of_boxes_without_a_box_that_can_be_used_leaves_a_photo_as_any_other(check):
    elsewhere = {"a__8_jpg": jpeg(drawing(8)), "a__8_xml": voc((1, 2, 3, 4), width=100, height=100)}
    table, _ = check(a__9_jpg=jpeg(drawing(9)), a__9_xml=voc(), **elsewhere)
    assert {"a/8.jpg", "a/9.jpg"} < set(table["source"])
    assert not table["annotated"].any()


def test_an_item_under_two_labels_is_left_out(tmp_path):
    names = [
        f"{label}/{view}/{serial}_{view}.jpg" for label in ("a", "b") for view in ("x", "y") for serial in (1, label)
    ]
    members = [(name, jpeg(drawing(seed))) for seed, name in enumerate(names)]
    with Archive(write_zip(tmp_path / "raw.zip", members)) as archive:
        table, findings = checks.check_photos(archive, read_layout(archive.names)[0])
    assert sorted(table["item"].unique()) == ["a", "b"]
    assert set(findings["problem"]) == {"its item appears under two labels"}
    assert table.groupby("item")["group"].nunique().tolist() == [1, 1]  # the views of an item stay together


@pytest.mark.parametrize(
    ("width", "height"), [(-120, -80), ("9" * 400, 1), (80, 120)], ids=["negative", "huge", "upright"]
)
def test_boxes_drawn_for_an_impossible_or_other_size_are_refused(width, height):
    with pytest.raises(ValueError, match=f"^made for a photo of {width} x {height} px, this one is 120 x 80$"):
        checks.read_boxes(voc((1, 2, 3, 4), width=width, height=height), 120, 80)


def test_boxes_without_area_are_dropped():
    assert checks.read_boxes(voc((30, 10, 20, 20), (7, 7, 7, 9), (3, 4, 5, 6)), 120, 80) == [["damage", 3, 4, 5, 6]]


def stored(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def clear(image):
    image = image.convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    return image


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a/odd.jpg", stored(drawing(9), "PNG"), "is PNG, not JPEG"),
        ("a/odd.jpg", stored(drawing(9).convert("CMYK"), "JPEG"), "CMYK"),
        ("a/odd.png", stored(clear(drawing(9)), "PNG"), "transparent: put on white"),
        (
            "a/odd.webp",
            stored(drawing(9), "WEBP", save_all=True, append_images=[drawing(8)]),
            "animated: first frame taken",
        ),
    ],
    ids=["wrong type", "CMYK", "alpha", "animated"],
)
def test_each_oddity_has_its_own_words_in_the_findings(name, data, problem, check):
    table, findings = check(**{name: data})
    assert findings == {name: (problem, checks.CORRECTED)}
    assert name in table["source"].tolist()


def test_a_photo_turned_by_its_tag_has_its_upright_size(check):
    exif = Image.Exif()
    exif[0x0112] = 6
    table, findings = check(**{"a/odd.jpg": stored(drawing(9), "JPEG", exif=exif)})
    assert findings == {"a/odd.jpg": ("rotated by its EXIF tag", checks.CORRECTED)}
    assert table.set_index("source").loc["a/odd.jpg", ["width", "height"]].tolist() == [80, 120]


def test_of_the_same_file_twice_the_one_with_boxes_is_kept(check):
    table, findings = check(a__9_jpg=jpeg(drawing(0)), a__9_xml=voc((1, 2, 30, 40)))
    assert findings == {"a/1.jpg": ("the same photo as a/9.jpg", checks.LEFT_OUT)}
    assert table.loc[table["annotated"], "source"].tolist() == ["a/9.jpg"]


def test_different_pictures_and_a_mirrored_one_are_no_duplicates(check):
    drawn = {f"a/{seed}.jpg": jpeg(drawing(seed)) for seed in range(6, 60)}
    mirrored = {"a/mirrored.jpg": jpeg(drawing(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT))}
    table, findings = check(**drawn, **mirrored)
    assert findings == {}
    assert table["group"].nunique() == len(table) == 6 + 54 + 1


def test_one_view_alike_brings_two_whole_items_into_one_group(tmp_path):
    names = [f"{label}/{view}/{label}{item}_{view}.jpg" for label in "ab" for view in "xy" for item in (1, 2)]
    members = {name: jpeg(drawing(seed)) for seed, name in enumerate(names)}
    members["a/y/a2_y.jpg"] = jpeg(drawing(names.index("a/y/a1_y.jpg")), quality=60)
    with Archive(write_zip(tmp_path / "raw.zip", members.items())) as archive:
        table, _ = checks.check_photos(archive, read_layout(archive.names)[0])
    assert table[table["label"] == "a"]["group"].nunique() == 1
    assert table[table["label"] == "b"].groupby("group")["item"].unique().map(list).tolist() == [["b1"], ["b2"]]


@pytest.mark.parametrize("shared", ["the same file", "encoded anew", "under two labels"])
def test_items_that_share_a_photo_stay_together_though_it_is_left_out(shared, tmp_path):
    names = [f"{label}/{view}/{label}{item}_{view}.jpg" for label in "ab" for view in "xy" for item in (1, 2)]
    members = {name: jpeg(drawing(seed)) for seed, name in enumerate(names)}
    other = "b/y/b2_y.jpg" if shared == "under two labels" else "a/y/a2_y.jpg"
    copied = jpeg(drawing(99), quality=60 if shared == "encoded anew" else 95)
    members |= {"a/y/a1_y.jpg": jpeg(drawing(99)), other: copied}
    with Archive(write_zip(tmp_path / "raw.zip", members.items())) as archive:
        table, _ = checks.check_photos(archive, read_layout(archive.names)[0], group_look_alikes=True)
        alone, _ = checks.check_photos(archive, read_layout(archive.names)[0], group_look_alikes=False)
    for found, tied in ((table, True), (alone, shared != "encoded anew")):
        group = found.groupby("item")["group"].first()
        assert (group["a1"] == group[other.split("/")[2][:2]]) == tied
        assert group.nunique() == (3 if tied else 4)


def test_two_photos_of_one_view_of_an_item_are_pointed_out(tmp_path):
    folders = [f"{day}/{label}" for day in ("monday", "tuesday") for label in "ab"]
    names = [f"{folder}/{view}/{folder[-1]}{item}_{view}.jpg" for folder in folders for view in "xy" for item in (1, 2)]
    members = {name: jpeg(drawing(seed)) for seed, name in enumerate(names)}
    with Archive(write_zip(tmp_path / "raw.zip", members.items())) as archive:
        table, findings = checks.check_photos(archive, read_layout(archive.names)[0])
    assert len(table) == len(findings) == 16
    assert set(findings["problem"]) == {"2 photos of this view of its item: is its serial used twice?"}


def test_items_that_were_not_seen_in_all_views_are_pointed_out(tmp_path):
    names = [f"{label}/{view}/{label}{item}_{view}.jpg" for label in "ab" for view in "xy" for item in (1, 2)]
    members = {name: jpeg(drawing(seed)) for seed, name in enumerate(names) if name != "a/y/a1_y.jpg"}
    members["b/x/b2_x.jpg"] = b"broken"
    with Archive(write_zip(tmp_path / "raw.zip", members.items())) as archive:
        _, findings = checks.check_photos(archive, read_layout(archive.names)[0])
    pointed = findings[findings["action"] == checks.KEPT].set_index("source")["problem"].to_dict()
    assert pointed == {
        "a/x/a1_x.jpg": "no usable photo of its item in the view y",
        "b/y/b2_y.jpg": "no usable photo of its item in the view x",
    }


def test_more_look_alikes_than_memory_should_hold_end_with_the_remedy(monkeypatch):
    monkeypatch.setattr(checks, "_MOST_PAIRS", 5)
    thumbs = np.zeros((3, 256), np.float32)
    assert len(checks._near_duplicates(thumbs)) == 3
    with pytest.raises(ValueError, match=r"About 6 pairs of 4 photos look the same .*set group_look_alikes=False"):
        checks._near_duplicates(np.zeros((4, 256), np.float32))


def test_parts_that_lie_alike_are_told_from_copies_by_a_parameter_that_the_error_names(tmp_path):
    members = {f"{'ab'[number % 2]}/{number}.jpg": jpeg(drawing(0), quality=50 + number) for number in range(12)}
    with Archive(write_zip(tmp_path / "raw.zip", members.items())) as archive:
        layout, fractions = read_layout(archive.names)[0], {"validation_fraction": 0.2, "test_fraction": 0.2}
        table, findings = checks.check_photos(archive, layout)
        assert len(findings) == findings["source"].nunique() == 11  # each once, not every pair
        with pytest.raises(SplitError, match=r"look the same: if they are different things, set group_look_alikes=F"):
            assign_splits(table, **fractions, seed=0)
        table, _ = checks.check_photos(archive, layout, group_look_alikes=False)
    assert table["group"].nunique() == len(table) == 12


def test_views_of_one_item_that_look_alike_are_no_finding(tmp_path):
    names = [f"{label}/{view}/{label}{n}_{view}.jpg" for label in "ab" for view in "xy" for n in (1, 2)]
    members = {name: jpeg(drawing(seed)) for seed, name in enumerate(names)}
    members["a/y/a1_y.jpg"] = jpeg(drawing(0), quality=60)  # as a/x/a1_x.jpg
    with Archive(write_zip(tmp_path / "r.zip", members.items())) as archive:
        assert checks.check_photos(archive, read_layout(archive.names)[0])[1].empty


def test_boxes_may_be_off_in_proportions_by_a_fiftieth():
    assert checks.read_boxes(voc((10, 20, 300, 200), width=600, height=405), 120, 80)
    with pytest.raises(ValueError, match="made for a photo of"):
        checks.read_boxes(voc((10, 20, 300, 200), width=600, height=415), 120, 80)
