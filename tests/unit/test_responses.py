import numpy as np
import pytest
import torch
from torch import nn

from helpers import networks, responses

AS_IT_IS = {"mean": [0.0, 0.0, 0.0], "deviation": [1.0, 1.0, 1.0]}
CPU = torch.device("cpu")


def network_of_colors():
    """The first stage gives red, green and blue (0 to 1) as they are, the second their means by 4 x 4, the third none.

    (The third gives features, which have no place.)
    """
    first, second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 4, stride=4, groups=3, bias=False)
    first.weight.data = torch.eye(3)[:, :, None, None]
    second.weight.data.fill_(1 / 16)
    third = nn.Conv2d(3, 3, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(first, second, *third, nn.Linear(3, 2)).eval()


@pytest.fixture
def images():
    """Four black images of 16 x 24 px: a red dot in the first, a weaker one in the second, and green in all."""
    images = torch.zeros(4, 3, 16, 24, dtype=torch.uint8)
    images[0, 0, 5, 13], images[1, 0, 15, 23] = 250, 200
    images[:, 1, 2, 2] = torch.tensor([90, 90, 90, 255])
    return images


def places(table, channel):
    return table.loc[table["channel"] == channel, ["row", "left", "top", "right", "bottom"]].to_numpy().tolist()


def test_each_channel_has_the_squares_around_its_strongest_responses_one_in_a_photo(images):
    found = responses.strongest(network_of_colors(), images, np.arange(4), AS_IT_IS, CPU, channels=3, places=2)
    first = found[found["stage"] == "stage 1"]
    assert list(found.columns) == responses.COLUMNS
    assert places(first, 0) == [[0, 11, 3, 16, 8], [1, 19, 11, 24, 16]]  # 5 px around (13.5, 5.5), and in the corner
    assert places(first, 1)[0] == [3, 0, 0, 5, 5]


def test_a_square_grows_with_the_steps_of_its_map_and_stays_in_the_image(images):
    table = responses.strongest(network_of_colors(), images, np.arange(4), AS_IT_IS, CPU, channels=3, places=1)
    second = table[table["stage"] == "stage 2"]
    assert places(second, 0) == [[0, 6, 0, 22, 16]]  # 5 steps of 4 px would be 20, more than the image is high


def test_channels_that_stand_out_come_first_and_those_that_hardly_respond_last(images):
    table = responses.strongest(network_of_colors(), images, np.arange(4), AS_IT_IS, CPU, channels=1, places=1)
    assert list(table["channel"]) == [1, 1]  # green responds in all photos; red in half, but less far from its mean
    images[1, 0] = 0  # now red responds in one photo of four, where it stands out as far as can be
    table = responses.strongest(network_of_colors(), images, np.arange(4), AS_IT_IS, CPU, channels=2, places=1)
    assert list(table["channel"])[::2] == [1, 1]


def test_rows_are_those_of_the_images_and_not_of_the_choice(images):
    table = responses.strongest(network_of_colors(), images, np.array([3, 1]), AS_IT_IS, CPU, channels=3, places=1)
    assert {row[0] for channel in (0, 1) for row in places(table, channel)} == {1, 3}


@pytest.mark.parametrize(
    ("name", "size", "known"),
    [
        ("vgg11", 64, ["stage 1", "stage 2", "stage 3", "stage 4"]),  # the fifth holds the dense layers
        ("swin_t", 64, ["stage 1", "stage 2", "stage 3"]),  # its maps have their channels last
        ("squeezenet1_1", 64, ["stage 1", "stage 2", "stage 3"]),  # the fourth ends in a mean over the photo
        ("vit_b_16", 224, []),  # tokens are no maps
    ],
)
def test_stages_that_give_maps_are_asked_in_any_network(name, size, known):
    torch.manual_seed(0)
    network = networks.build(name, 2, "none").eval()
    noise = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    table = responses.strongest(
        network, noise, np.arange(2), networks.IMAGENET_NORMALIZATION, CPU, channels=2, places=1
    )
    assert list(table["stage"]) == [stage for stage in known for _ in range(2)]
    assert (table["right"] - table["left"] == table["bottom"] - table["top"]).all()
    assert table[["left", "top"]].min(axis=None) >= 0 if known else table.empty
    assert table[["right", "bottom"]].max(axis=None) <= size if known else table.empty


def test_of_few_photos_there_are_few_places(images):
    table = responses.strongest(network_of_colors(), images, np.arange(2), AS_IT_IS, CPU, channels=1, places=4)
    assert table.groupby("stage").size().tolist() == [2, 2]
