from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers import corruptions
from helpers.images import HIDDEN


def photos():
    """(2, 3, 160, 64) uint8: noise on a ramp from left to right."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(60, 200, 64) + generator.normal(0, 12, (2, 3, 160, 64))
    return torch.from_numpy(ramp.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_each_strength_spoils_more_than_the_one_before(kind):
    images = photos()
    spoilt = [corruptions.corrupt(images, kind, strength) for strength in corruptions.STRENGTHS]
    assert all(one.shape == images.shape and one.dtype == torch.uint8 for one in spoilt)
    harm = [0.0] + [(one.float() - images.float()).abs().mean().item() for one in spoilt]
    assert all(less < more for less, more in pairwise(harm))


@pytest.mark.parametrize("kind", corruptions.KINDS)
def test_the_same_photos_are_spoilt_the_same_way(kind):
    assert torch.equal(corruptions.corrupt(photos(), kind, 3), corruptions.corrupt(photos(), kind, 3))


def test_darkness_takes_light_and_a_shift_moves_down_and_to_the_right():
    images = photos()
    assert torch.equal(corruptions.corrupt(images, "darkness", 2), (images * 0.7).round().byte())
    moved = corruptions.corrupt(images, "shift", 5)  # 15 percent of 160 px
    assert torch.equal(moved[..., 24:, 24:], images[..., :-24, :-24])


def test_noise_has_its_deviation_and_a_rotation_its_angle():
    gray = torch.full((1, 3, 120, 120), 128, dtype=torch.uint8)
    assert corruptions.corrupt(gray, "noise", 2).float().std().item() == pytest.approx(16, rel=0.02)
    gray[..., 55:65, 105:115] = 255  # 50 px to the right of the middle
    turned = corruptions.corrupt(gray, "rotation", 5)[0, 0].float() - 128  # by 20 degrees
    down, right = (turned.clip(0) > 60).nonzero().float().mean(0) - 59.5
    assert torch.rad2deg(torch.atan2(down, right)).abs().item() == pytest.approx(20, abs=1)


@pytest.mark.parametrize("size", [(180, 320), (320, 180), (224, 224), (32, 32)])
def test_a_rotation_leaves_no_empty_corner(size):
    white = torch.full((1, 3, *size), 255, dtype=torch.uint8)
    assert all(corruptions.corrupt(white, "rotation", strength).min() == 255 for strength in corruptions.STRENGTHS)


@pytest.mark.parametrize("kind", ["blur", "noise", "darkness", "compression"])
def test_what_is_hidden_stays_so(kind):
    images = photos()
    images[..., :30] = torch.tensor(HIDDEN)[:, None, None]
    spoilt = corruptions.corrupt(images, kind, 5)
    assert torch.equal(spoilt[..., :30], images[..., :30])
    assert not torch.equal(spoilt[..., 30:], images[..., 30:])


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="choose one of blur, noise, darkness"):
        corruptions.corrupt(photos(), "rain", 1)
