import boxes_drawn as drawn
import numpy as np
import pytest
from PIL import Image

from helpers import boxes, catalog, crops, predict, unrolling
from helpers.archives import Archive
from helpers.images import HIDDEN, load_images, read_image
from helpers.photos import decode

SPLITS = ["train"] * 24 + ["validation", "test"] * 2
LYING = drawn.lying(len(SPLITS), seed=1)
PRINT = drawn.print_of(0)
BLOT = {**PRINT, "front": PRINT["front"].copy()}
BLOT["front"][16:48, 32:64] = 0  # its middle in height, the right half
FACE, MARGIN = 320, 0.08 * 320 / 1.16  # px, as `unrolling` draws them


def bad(number):
    return number % 5 == 4


@pytest.fixture(scope="module")
def line(make_dataset, tmp_path_factory):
    """A side view of boxes of one kind, one in five with a black blot on its front."""
    pictures = [
        (("good", "bad")[bad(number)], "side", f"item{number}", split, photo_of(number))
        for number, split in enumerate(SPLITS)
    ]
    return make_dataset(tmp_path_factory.mktemp("boxes") / "data.zip", pictures)


def photo_of(number, faces=None):
    return drawn.photograph(LYING[number], faces or (BLOT if bad(number) else PRINT), number)[0]


@pytest.fixture(scope="module")
def learned(line):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "_CAMERAS", boxes._CAMERAS[:3])  # the others take time
        patch.setattr(unrolling, "_FEWEST", 20)
        return unrolling.learn(line)


@pytest.fixture
def belt_known(learned, monkeypatch):
    """Finding the empty belt takes time: here it is known."""
    monkeypatch.setattr(crops, "find_backgrounds", lambda _: {"side": learned["side unrolled"]["background"]})


@pytest.fixture
def fitted(belt_known, learned, monkeypatch):
    """Camera and box are known as well."""
    monkeypatch.setattr(unrolling, "_FEWEST", 20)
    monkeypatch.setattr(boxes, "fit", lambda *_: learned["side unrolled"]["box"])


def unroll(pixels, learned):
    (picture,) = unrolling.unroll([Image.fromarray(pixels)], learned["side unrolled"])
    return picture and np.asarray(picture).astype(int) - HIDDEN


def within(picture, face):
    """A face of the picture, a little within its rim."""
    low, high = round(MARGIN) + 12, FACE - round(MARGIN) - 12
    return picture[low:high, face * FACE + low : face * FACE + high]


def test_one_view_is_unrolled_to_the_faces_that_the_camera_sees(learned):
    assert list(learned) == ["side unrolled"]
    assert learned["side unrolled"]["view"] == "side"
    assert learned["side unrolled"]["box"]["faces"] == ["top", "front"]


def test_an_intact_box_is_gray_but_for_its_rims(learned):
    picture = unroll(photo_of(25), learned)
    assert picture.shape == (FACE, 2 * FACE, 3)
    for face in (0, 1):
        assert np.median(np.abs(within(picture, face))) < 6
        assert np.abs(within(picture, face)).mean() < 12


def test_damage_stands_out_where_it_is(learned):
    picture = unroll(photo_of(24), learned)
    size = FACE - 2 * MARGIN
    top, left = MARGIN + size / 4, FACE + MARGIN + size / 2  # of the blot
    blot = picture[round(top) + 12 : round(top + size / 2) - 12, round(left) + 12 : round(left + size / 2) - 12]
    assert blot.mean() < -60
    assert np.abs(within(picture, 0)).mean() < 12


def test_a_white_spot_is_not_dark(learned):
    spot = photo_of(25).copy()
    x, y = drawn.corners(LYING[25], "front").mean(0).round().astype(int)
    spot[y - 4 : y + 5, x - 4 : x + 5] = 255
    middle = unroll(spot, learned)[FACE // 2 - 5 : FACE // 2 + 5, FACE + FACE // 2 - 5 : FACE + FACE // 2 + 5]
    assert middle.min() > -20  # as bright as can be, where bytes that overflow would be black


def test_light_has_no_part_in_it(learned):
    plain, darker = unroll(photo_of(25), learned), unroll((photo_of(25) * 0.8).round().astype(np.uint8), learned)
    assert np.abs(plain - darker).mean() < 5  # a fifth of the light would be 30


def test_what_lies_beyond_the_photo_is_as_usual(learned):
    cut = drawn.Lying(-2.2, -0.5, 0.0)
    assert drawn.corners(cut, "front")[:, 0].min() < 0
    pixels, _ = drawn.photograph(cut, PRINT)
    picture = unroll(pixels, learned)
    assert (picture[60:260, FACE + 30 : FACE + 40] == 0).all()
    assert np.abs(within(picture, 1)).mean() < 15


def test_no_box_of_the_kind_no_picture(learned):
    assert unroll(drawn.belt(), learned) is None
    assert unroll(photo_of(3, drawn.print_of(7)), learned) is None


def test_photos_are_unrolled_in_their_order(learned):
    photos = [Image.fromarray(pixels) for pixels in (drawn.belt(), photo_of(24), photo_of(25))]
    nothing, first, second = unrolling.unroll(photos, learned["side unrolled"])
    assert nothing is None
    for picture, number in ((first, 24), (second, 25)):
        alone = unroll(photo_of(number), learned)
        assert np.abs(np.asarray(picture).astype(int) - HIDDEN - alone).mean() < 1


def test_a_larger_photo_gives_the_same_picture(learned):
    large = np.asarray(Image.fromarray(photo_of(24)).resize((960, 540), Image.Resampling.BICUBIC))
    assert np.abs(unroll(large, learned) - unroll(photo_of(24), learned)).mean() < 3


def test_the_new_view_stands_in_the_data_set(line, learned, make_dataset, tmp_path):
    copy = make_dataset(tmp_path / "data.zip", [("good", "side", "only", "train", drawn.belt())])
    copy.path.write_bytes(line.path.read_bytes())
    found = unrolling.add(catalog.load(copy.path), learned)
    assert found.views == ["side", "side unrolled"]
    assert found.unrolled == learned
    made = found.catalog[found.catalog["view"] == "side unrolled"]
    taken = found.catalog[found.catalog["view"] == "side"]
    facts = ["label", "item", "split", "group"]
    assert made[facts].to_numpy().tolist() == taken[facts].to_numpy().tolist()
    assert made["path"].iloc[0] == "images/good/side unrolled/item0_side unrolled.png"
    assert made[["width", "height"]].to_numpy().tolist() == [[2 * FACE, FACE]] * len(taken)
    stored = read_image(found, made["path"].iloc[0]).astype(int) - HIDDEN
    assert np.abs(stored - unroll(photo_of(0), learned)).mean() < 3  # stored as JPEG
    assert np.array_equal(read_image(found, taken["path"].iloc[0]), photo_of(0))
    assert list(crops.find_backgrounds(found)) == ["side"]  # what was unrolled is not cut out
    assert len(load_images(found, 8, 16)) == 2 * len(SPLITS)


def test_the_line_makes_the_picture_that_the_data_set_holds(line, learned, tmp_path):
    (tmp_path / "data.zip").write_bytes(line.path.read_bytes())
    found = unrolling.add(line._replace(path=tmp_path / "data.zip"), learned)
    taken = found.catalog[found.catalog["view"] == "side"].iloc[20:]
    with Archive(found.path) as archive:
        photos = [(f"{row.item}_side.png", archive.read(row.path)) for row in taken.itertuples()]
    card = {"unrolled": learned, "stored": None}
    made = {name: data for name, data in predict._with_unrolled(photos, card, set(found.views)) if "unrolled" in name}
    assert len(made) == len(taken)
    for item in taken["item"]:
        stored = read_image(
            found, f"images/{'bad' if bad(int(item[4:])) else 'good'}/side unrolled/{item}_side unrolled.png"
        )
        own = np.asarray(decode(made[f"{item}_side unrolled.png"])[0]).astype(int)
        assert np.abs(own - stored).mean() < 1


def test_a_face_that_looks_away_is_as_usual(learned):
    photo, face = Image.fromarray(photo_of(25)), np.array([[0.4, 0, 20.0], [0, 0.4, 20.0], [0, 0, 1.0]])
    mirrored = face @ [[-1, 0, FACE], [0, 1, 0], [0, 0, 1]]
    shown = unrolling._drawn(photo, np.stack([face, mirrored]))[1]
    assert shown[:, :FACE].all()
    assert not shown[:, FACE:].any()
    boxes = unrolling._unrolled_boxes([["dent", 40, 40, 80, 80]], np.stack([face, mirrored]))
    assert boxes == [["dent", 50, 50, 150, 150]]  # on the first alone


@pytest.mark.parametrize("scale", [(5.0, 5.0), (5.0, 1.0)])  # a face as high as it is wide, and a wide one
def test_fine_print_is_averaged_and_not_skipped(scale):
    stripes = np.zeros((1800, 1800, 3), np.uint8)
    stripes[:, ::2] = 200
    for picture, (across, down) in ((stripes, scale), (stripes.transpose(1, 0, 2), scale[::-1])):
        drawn, _ = unrolling._drawn(Image.fromarray(picture), np.array([np.diag([across, down, 1.0])]))
        assert np.abs(drawn[20:300, 20:300].astype(int) - 100).max() <= 45  # single pixels are 0 or 200


def test_a_face_seen_along_its_plane_takes_no_more_memory_than_the_photo():
    photo = Image.new("RGB", (1000, 600), (200, 200, 200))
    along = np.array([[1.0, 0, 0], [0, 1.0, 0], [-1 / 320.001, 0, 1]])  # its right edge lies nearly at the horizon
    assert unrolling._finer(along, 1000 / FACE) == (3, 3)
    assert unrolling._drawn(photo, np.array([along]))[0].shape == (FACE, FACE, 3)


def test_what_lies_half_beyond_the_photo_is_not_shown():
    photo, face = Image.new("RGB", (1000, 1000), (200, 200, 200)), np.array([[3.0, 0, 300], [0, 3.0, 301], [0, 0, 1]])
    picture, known = unrolling._drawn(photo, np.array([face]))
    assert 0 < known.mean() < 1
    assert picture[known].min() > 190


def test_how_high_photos_are_is_for_the_width_of_those_that_are_looked_at():
    assert unrolling._stretch([Image.new("RGB", (320, 225))]) == pytest.approx(1.25)


def test_damage_boxes_are_unrolled_with_their_faces(line, learned, tmp_path):
    corners = drawn.corners(LYING[24], "front")
    box = ["dent", *corners.min(0).round().astype(int).tolist(), *corners.max(0).round().astype(int).tolist()]
    table = line.catalog.iloc[[24]].assign(boxes=[[box]])
    (tmp_path / "data.zip").write_bytes(line.path.read_bytes())
    boxed = line._replace(path=tmp_path / "data.zip", catalog=table)
    made = unrolling.add(boxed, learned).catalog.iloc[-1]
    fronts = [one for one in made["boxes"] if one[1] >= FACE]
    assert [one[0] for one in fronts] == ["dent"]
    assert fronts[0][1:] == pytest.approx([FACE + MARGIN, MARGIN, 2 * FACE - MARGIN, FACE - MARGIN], abs=35)


def test_few_photos_are_left_as_they_are(line, belt_known):
    assert unrolling.learn(line) == {}  # 24 photos to learn from


def test_without_views_or_with_them_unrolled_all_is_left_as_it_is(line, make_dataset, tmp_path):
    assert unrolling.add(line, {}) is line
    known = line._replace(views=["side", "side unrolled"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unrolling, "_FEWEST", 20)
        assert unrolling.learn(known) == {}  # there is such a view already
    plain = make_dataset(tmp_path / "plain.zip", [(label, "", label, "train", drawn.belt()) for label in ("a", "b")])
    assert unrolling.learn(plain) == {}


@pytest.mark.parametrize("strangers", [0, 6])
def test_two_kinds_of_boxes_in_a_view_leave_it_as_it_is(strangers, fitted, make_dataset, tmp_path):
    prints = [drawn.print_of(7) if number < strangers else PRINT for number in range(24)]
    pictures = [("good", "side", f"{number}", "train", photo_of(number, faces)) for number, faces in enumerate(prints)]
    assert list(unrolling.learn(make_dataset(tmp_path / "data.zip", pictures))) == ["side unrolled"] * (not strangers)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("4006_side.jpg", "4006_side unrolled.jpg"),
        ("line/4006_SIDE.JPG", "line/4006_SIDE unrolled.JPG"),
        ("line/side/4006.jpg", "line/side unrolled/4006.jpg"),
        ("images/bad/side/4006_side.jpg", "images/bad/side unrolled/4006_side unrolled.jpg"),
    ],
)
def test_the_name_says_that_it_was_unrolled(name, expected):
    assert unrolling.renamed(name, "side") == expected


def test_accents_may_be_written_in_one_character_or_two():
    assert (
        unrolling.renamed("ho\u0308he/1_ho\u0308he.jpg", "h\u00f6he") == "h\u00f6he unrolled/1_h\u00f6he unrolled.jpg"
    )
