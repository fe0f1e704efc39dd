import pytest

from helpers.layouts import EXPECTED, LayoutError, check_names, read_layout


def rows(names, *columns):
    """What `read_layout` says of each photo, by its name."""
    table, misfits = read_layout(names)
    assert misfits == []
    return {row[0]: row[1:] for row in table[["source", *columns]].itertuples(index=False, name=None)}


def refusal(names):
    with pytest.raises(LayoutError) as caught:
        read_layout(names)
    return str(caught.value)


def below(folder, names):
    return {f"{folder}{name}": row for name, row in names.items()}


VIEWS = {  # name: label, view, item, split
    "damaged/side/0185973818825_side.jpg": ("damaged", "side", "0185973818825", ""),
    "damaged/top/0185973818825_top.jpg": ("damaged", "top", "0185973818825", ""),
    "intact/side/4006381008505_side.jpg": ("intact", "side", "4006381008505", ""),
    "intact/top/4006381008505_top.jpg": ("intact", "top", "4006381008505", ""),
}
THREE_VIEWS = VIEWS | {
    "damaged/left_end/0185973818825_left_end.jpg": ("damaged", "left_end", "0185973818825", ""),
    "intact/left_end/lot_7_left_end.PNG": ("intact", "left_end", "lot_7", ""),
}
CLASSES = {
    "glass/glass12.jpg": ("glass", "", "glass/glass12", ""),
    "glass/2024.05.01.jpg": ("glass", "", "glass/2024.05.01", ""),
    "paper bag/a b.webp": ("paper bag", "", "paper bag/a b", ""),
    "übrig/été.tiff": ("übrig", "", "übrig/été", ""),
}


@pytest.mark.parametrize("folder", ["", "raw/", "my photos/2024-05/line 3/"], ids=["top", "one down", "three down"])
@pytest.mark.parametrize(
    "names", [VIEWS, THREE_VIEWS, CLASSES], ids=["two views", "three views of unequal number", "plain class folders"]
)
def test_the_folders_say_label_view_and_item_at_any_depth(names, folder):
    assert rows(below(folder, names), "label", "view", "item", "split") == below(folder, names)


@pytest.mark.parametrize("folder", ["", "raw/deep/", "test/"], ids=["top", "two down", "under a folder named test"])
@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "Validation", "Test")],
    ids=["short", "of mixed case", "long"],
)
def test_the_folders_of_a_divided_set_say_the_split_and_nothing_else(train, validation, test, folder):
    names = {
        f"{folder}{train}/cat/1.jpg": ("cat", "train"),
        f"{folder}{train}/dog/1.jpg": ("dog", "train"),
        f"{folder}{validation}/cat/1.jpg": ("cat", "validation"),
        f"{folder}{validation}/dog/1.jpg": ("dog", "validation"),
        f"{folder}{test}/cat/1.jpg": ("cat", "test"),
        f"{folder}{test}/dog/1.jpg": ("dog", "test"),
    }
    assert rows(names, "label", "split") == names
    assert len(set(rows(names, "item").values())) == 6  # 1.jpg of three folders are three photos


def test_a_divided_set_may_have_views_and_its_items_keep_their_serial():
    names = {
        "train/damaged/side/01_side.jpg": ("damaged", "side", "01", "train"),
        "train/damaged/top/01_top.jpg": ("damaged", "top", "01", "train"),
        "val/intact/side/02_side.jpg": ("intact", "side", "02", "validation"),
        "test/intact/side/03_side.jpg": ("intact", "side", "03", "test"),
    }
    assert rows(names, "label", "view", "item", "split") == names


@pytest.mark.parametrize("other", ["dog", "testing"])
def test_a_folder_named_test_is_a_class_where_no_train_stands_beside_it(other):
    names = {"test/1.jpg": ("test", ""), f"{other}/2.jpg": (other, "")}
    assert rows(names, "label", "split") == names


def test_a_folder_named_train_alone_is_a_class():
    names = {"train/1.jpg": ("train", ""), "bus/2.jpg": ("bus", "")}
    assert rows(names, "label", "split") == names


def test_splits_may_stand_below_the_classes():
    names = {
        "cat/train/1.jpg": ("cat", "train"),
        "cat/test/2.jpg": ("cat", "test"),
        "dog/train/1.jpg": ("dog", "train"),
    }
    assert rows(names, "label", "split") == names


@pytest.mark.parametrize("ending", ["xml", "XML"])
def test_boxes_beside_a_photo_are_found_and_the_annotated_part_is_no_label(ending):
    names = [*VIEWS, "annotated/damaged/top/99_top.png", f"annotated/damaged/top/99_top.{ending}"]
    found = rows(names, "label", "view", "item", "annotation")
    assert found["annotated/damaged/top/99_top.png"] == ("damaged", "top", "99", names[-1])
    assert {name: found[name][-1] for name in VIEWS} == dict.fromkeys(VIEWS, "")


def test_the_annotated_part_of_plain_class_folders_is_no_label_either():
    names = {"plain/cat/1.jpg": ("cat",), "plain/dog/2.jpg": ("dog",), "annotated/dog/3.jpg": ("dog",)}
    assert rows(names, "label") == names


def test_boxes_belong_to_the_photo_in_their_own_folder_alone():
    names = {
        "cat/1.v2.jpg": ("cat/1.v2.xml",),
        "cat/1.jpg": ("",),
        "dog/1.v2.jpg": ("",),
    }
    assert rows([*names, "cat/1.v2.xml"], "annotation") == names


def test_files_that_are_neither_photo_nor_boxes_are_named_and_the_rest_goes_on():
    table, misfits = read_layout([*VIEWS, "damaged/side/notes.txt", "Annotations/1.xml", "damaged/side/clip.mp4"])
    assert table["source"].tolist() == sorted(VIEWS)
    reason = "neither a photo, by its extension, nor boxes: save it as JPEG or PNG, if it is a photo"
    assert misfits == [
        ("Annotations/1.xml", "no photo of that name stands beside it: put it beside its photo"),
        ("damaged/side/clip.mp4", reason),
        ("damaged/side/notes.txt", reason),
    ]


def test_what_stands_beside_the_splits_is_listed_and_never_learned_from():
    names = [f"{split}/{label}/{split}.jpg" for split in ("train", "val") for label in ("cat", "dog")]
    table, misfits = read_layout([*names, "holdout/cat/1.jpg", "annotated/dog/2.jpg", "annotated/dog/2.xml"])
    assert misfits == [("holdout/cat/1.jpg", "stands in none of train, val and test, which are there: put it into one")]
    assert table.set_index("source")["split"].to_dict() == {
        **{name: {"train": "train", "val": "validation"}[name.split("/")[0]] for name in names},
        "annotated/dog/2.jpg": "",
    }


def test_views_may_be_written_in_capitals():
    names = ["damaged/side/1_SIDE.JPG", "damaged/Side/2_side.jpg", "intact/side/3_Side.jpg"]
    table, misfits = read_layout(names)
    assert misfits == []
    assert table["item"].tolist() == ["2", "1", "3"]
    assert table["view"].nunique() == 1


@pytest.mark.parametrize(
    ("names", "stray", "reason"),
    [
        (VIEWS, "damaged/side/overview.jpg", "not named serial_side"),
        (VIEWS, "damaged/side/_side.jpg", "not named serial_side"),
        (VIEWS, "damaged/back/overview.jpg", "not named serial_view in a folder view"),
        (
            VIEWS,
            "damaged/side/77_top.jpg",
            "named as a photo of top, but stands in the folder 'side': put it into label/top",
        ),
        (
            VIEWS,
            "damaged/side/7/77_side.jpg",
            "named as a photo of side, but stands in the folder '7': put it into label/side",
        ),
        (VIEWS, "side/77_side.jpg", "stands in no folder view below a folder label"),
        (CLASSES, "overview.jpg", "stands in no class folder"),
        (
            CLASSES,
            "annotated/1.jpg",
            "stands in no class folder: 'annotated' is none, it holds photos with boxes; give a class another name",
        ),
    ],
    ids=["another name", "no serial", "no view", "another view", "a folder below", "no label", "no class", "annotated"],
)
def test_a_stray_photo_is_named_with_the_reason_and_the_rest_goes_on(names, stray, reason):
    table, misfits = read_layout([*names, stray])
    assert misfits == [(stray, reason)]
    assert table["source"].tolist() == sorted(names)


def test_class_folders_whose_photos_are_named_after_them_are_no_views():
    names = {f"set/{label}/{number}_{label}.jpg": (label, "") for label in ("cat", "dog") for number in (1, 2)}
    assert rows(names, "label", "view") == names


def test_the_order_of_the_names_does_not_matter():
    names = [*THREE_VIEWS, "lost.txt", "damaged/side/overview.jpg"]
    table, misfits = read_layout(names)
    again, misfits_again = read_layout(reversed(names))
    assert table.equals(again)
    assert (
        misfits
        == misfits_again
        == [
            ("lost.txt", "neither a photo, by its extension, nor boxes: save it as JPEG or PNG, if it is a photo"),
            ("damaged/side/overview.jpg", "not named serial_side"),
        ]
    )


@pytest.mark.parametrize(
    ("names", "reason", "found"),
    [
        ([], "no file is a photo (.jpg, .jpeg, .png, ", ["  no file at all"]),
        (["a/1.heic", "a/2.heic"], "no file is a photo (.jpg, ", ["  a/1.heic  (2 files)"]),
        (["1.jpg", "2.jpg"], "no photo stands in a class folder", ["  ./1.jpg  (2 files)"]),
        (["x/cat/1.jpg"], "found 1 label folder(s), at least 2 are needed", ["  x/cat/1.jpg  (1 files)"]),
        (["train/cat/1.jpg", "test/cat/2.jpg"], "found 1 label folder(s)", ["  train/cat/1.jpg  (1 files)"]),
        (["train/1.jpg", "test/2.jpg"], "no photo stands in a class folder", ["  train/1.jpg  (1 files)"]),
        (
            ["set/cat/1.jpg", "set/cat/odd/2.jpg", "set/dog/3.jpg"],
            "photos lie in 'set/cat' and in 'set/cat/odd', which do not stand side by side: which are the classes?",
            ["  set/cat/1.jpg  (1 files)", "  set/cat/odd/2.jpg  (1 files)", "  set/dog/3.jpg  (1 files)"],
        ),
        (
            ["cat/top/1.jpg", "dog/top/2.jpg", "dog/top/3.jpg"],
            "photos lie in 'cat/top' and in 'dog/top', which do not stand side by side: which are the classes? "
            "If 'top' is a view, name its photos serial_top.",
            ["  dog/top/2.jpg  (2 files)", "  cat/top/1.jpg  (1 files)"],
        ),
        (
            ["OK/2024-01-05/1.jpg", "OK/2024-01-06/2.jpg", "NOK/2024-01-07/3.jpg"],
            "photos lie in 'NOK/2024-01-07' and in 'OK/2024-01-05', which do not stand side by side: which are",
            ["  OK/2024-01-05/1.jpg  (1 files)", "  OK/2024-01-06/2.jpg  (1 files)"],
        ),
        (
            ["annotated/1.jpg", "plain/2.jpg"],
            "found 1 label folder(s), at least 2 are needed, and annotated/1.jpg stands in no class folder",
            ["  annotated/1.jpg  (1 files)", "  plain/2.jpg  (1 files)"],
        ),
    ],
    ids=[
        "empty",
        "no photo",
        "no folder",
        "one label",
        "one label divided",
        "splits alone",
        "a class in a class",
        "otherwise",
        "days",
        "a class called annotated",
    ],
)
def test_an_unknown_layout_is_answered_with_what_was_found_and_what_is_expected(names, reason, found):
    message = refusal(names)
    assert message.startswith(f"Unknown layout: {reason}")
    assert set(found) <= set(message.splitlines())
    assert message.endswith(f"\n{EXPECTED}")
    assert "label/view/serial_view.ext" in EXPECTED
    assert "label/name.ext" in EXPECTED


def test_of_many_folders_the_eight_fullest_are_shown_and_the_others_counted():
    names = [f"folder{folder}/deep/{number}.jpg" for folder in range(11) for number in range(folder + 1)]
    lines = refusal(names).splitlines()
    shown = lines[lines.index("Found:") + 1 : lines.index(EXPECTED.splitlines()[0])]
    assert shown == [f"  folder{folder}/deep/0.jpg  ({folder + 1} files)" for folder in range(10, 2, -1)] + [
        "  ... and 3 more folders"
    ]


@pytest.mark.parametrize("label", ["problem", "suggested", "group", "unfamiliar", "not sure"])
def test_a_label_called_as_a_column_or_an_answer_of_our_tables_is_refused(label):
    assert refusal(["good/a.jpg", f"{label}/b.jpg"]).startswith(f"No label can be called '{label}'")


@pytest.mark.parametrize("other", ["Bad", "bad ", "BAD"])
def test_labels_that_differ_only_in_capitals_or_blanks_are_refused(other):
    message = refusal(["good/1.jpg", "bad/2.jpg", f"{other}/3.jpg"])
    assert repr(other) in message
    assert "'bad'" in message
    assert message.endswith("differ only in capitals or blanks: give these labels one name")


def test_a_class_of_a_divided_set_that_is_called_like_a_split_is_refused():
    names = [f"{split}/{label}/1.jpg" for split in ("train", "val", "test") for label in ("bus", "train")]
    assert "'test/train/1.jpg' stands in two splits: give the class 'train' another name" in refusal(names)


def test_a_split_may_stand_in_a_folder_of_its_own_name():
    names = {f"{split}/{split}/{label}/1.jpg": (label, split) for split in ("train", "test") for label in ("a", "b")}
    assert rows(names, "label", "split") == names


def test_a_view_called_as_the_answer_of_all_views_is_refused():
    names = [f"{label}/{view}/1_{view}.jpg" for label in ("good", "bad") for view in ("top", "fused")]
    assert refusal(names).startswith("No view can be called 'fused'")


def test_a_name_that_is_not_utf8_is_listed_and_the_others_are_read():
    table, misfits = read_layout(["a/1.jpg", "b/2.jpg", b"b/caf\xe9.jpg".decode(errors="surrogateescape")])
    assert table["source"].tolist() == ["a/1.jpg", "b/2.jpg"]
    assert misfits == [(r"'b/caf\udce9.jpg'", "its name is not in UTF-8, or holds control characters: rename it")]


def test_a_name_with_control_characters_is_listed_and_the_others_are_read():
    table, misfits = read_layout(["a/1.jpg", "b/2.jpg", "b/new\nline.jpg"])
    assert table["source"].tolist() == ["a/1.jpg", "b/2.jpg"]
    assert [name for name, _ in misfits] == [r"'b/new\nline.jpg'"]


@pytest.mark.parametrize("view", ["cam:1", "cam\\1"])
def test_a_view_that_no_archive_can_hold_is_refused(view):
    with pytest.raises(LayoutError, match="rename it, without : and"):
        check_names(["a", "b"], [view])


def test_accents_are_one_character_whatever_system_the_names_come_from():
    of_a_mac = [f"bescha\u0308digt/ru\u0308ck/{item}_ru\u0308ck.jpg" for item in (1, 2)]
    table, _ = read_layout([*of_a_mac, "heil/r\u00fcck/3_r\u00fcck.jpg"])
    assert table["source"].tolist()[:2] == of_a_mac
    assert set(table["label"]) == {"besch\u00e4digt", "heil"}
    assert set(table["view"]) == {"r\u00fcck"}
    assert table["item"].tolist() == ["1", "2", "3"]
    table, _ = read_layout(["gru\u0308n/a\u0308.jpg", "gr\u00fcn/\u00e4.xml", "rot/b.jpg"])
    assert table["item"].tolist() == ["gr\u00fcn/\u00e4", "rot/b"]
    assert table["annotation"].tolist() == ["gr\u00fcn/\u00e4.xml", ""]
