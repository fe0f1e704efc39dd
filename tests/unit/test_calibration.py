import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import calibration


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def drawn(temperature, count=20_000):
    """Probabilities that are too sure by that temperature, and labels drawn from the true ones."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (count, 4))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    return softmax(logits * temperature), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_one_that_the_labels_were_drawn_with(temperature):
    probabilities, labels = drawn(temperature)
    assert calibration.temperature(probabilities, labels) == pytest.approx(temperature, rel=0.05)


def test_without_validation_data_there_is_no_temperature():
    with pytest.raises(ValueError, match="there are none"):
        calibration.temperature(np.empty((0, 2)), np.empty(0, int))


@pytest.mark.parametrize(("count", "sure"), [(8, 9 / 10), (24, 25 / 26), (198, 199 / 200)])
def test_a_few_answers_that_are_all_right_make_no_network_certain(count, sure):
    answers = np.tile([[0.9, 0.1], [0.1, 0.9]], (count // 2, 1))
    temperature = calibration.temperature(answers, np.arange(count) % 2)
    assert calibration.with_temperature(answers, temperature).max(1) == pytest.approx(sure, abs=1e-4)


@given(st.floats(0.1, 10), st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_a_temperature_keeps_the_order_and_the_sum(temperature, weights):
    before = np.array([weights]) / sum(weights)
    after = calibration.with_temperature(before, temperature)
    assert after.sum() == pytest.approx(1)
    assert (np.diff(after[0, before[0].argsort()]) >= -1e-12).all()


def test_a_temperature_of_two_takes_square_roots():
    after = calibration.with_temperature(np.array([[0.8, 0.2]]), 2.0)
    np.testing.assert_allclose(after, [[2 / 3, 1 / 3]])  # the roots of 0.8 and 0.2 are as 2 to 1


def test_zero_and_one_stay_numbers():
    assert np.isfinite(calibration.with_temperature(np.array([[1.0, 0.0]]), 0.05)).all()


def test_the_calibration_error_is_the_mean_distance_weighed_by_images():
    probabilities = np.array([[0.95, 0.05]] * 4 + [[0.55, 0.45]] * 2)
    labels = np.array([0, 0, 0, 1, 1, 1])  # 3 of 4 right where it says 0.95, none of 2 where it says 0.55
    table = calibration.reliability(probabilities, labels, [1, 2, 3, 3, 4, 5])
    assert table["confidence"].tolist() == pytest.approx([0.55, 0.95])
    assert table["accuracy"].tolist() == [0.0, 0.75]
    assert table["images"].tolist() == [2, 4]
    assert table["different"].tolist() == [2, 3]
    expected = (2 * 0.55 + 4 * 0.20) / 6
    assert calibration.expected_calibration_error(table) == pytest.approx(expected)


def test_probabilities_that_mean_what_they_say_have_hardly_an_error():
    honest, labels = drawn(1.0)
    boastful, _ = drawn(3.0)
    errors = [
        calibration.expected_calibration_error(calibration.reliability(own, labels, range(len(labels))))
        for own in (honest, boastful)
    ]
    assert errors[0] < 0.01
    assert errors[1] > 0.1


def test_a_confidence_of_one_is_in_the_last_bin():
    sure = np.array([[1.0, 0.0], [0.95, 0.05]])
    assert calibration.reliability(sure, np.array([0, 0]), [0, 1])["images"].tolist() == [2]


def test_sure_is_the_lowest_confidence_that_reaches_the_accuracy():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 0])  # right, right, wrong, right: 1, 1, 2/3, 3/4 of those so far
    assert calibration.sure_above(probabilities, labels, 1.0) == pytest.approx(0.8)
    assert calibration.sure_above(probabilities, labels, 0.75) == pytest.approx(0.6)


def test_the_threshold_can_be_reached_by_the_answers_of_items():
    threshold = calibration.sure_above(np.array([[1.0, 0.0]]), np.array([0]), 0.5)
    assert 0.99999 < threshold < 1


def test_where_nothing_is_right_nothing_is_sure():
    assert calibration.sure_above(np.array([[0.9, 0.1]]), np.array([1]), 0.5) == calibration.NEVER > 1


def test_of_answers_that_are_equally_sure_all_are_sure_or_none():
    probabilities = np.array([[0.9, 0.1]] * 10)
    labels = np.array([0] + [1] * 9)
    assert calibration.sure_above(probabilities, labels, accuracy=0.95) == calibration.NEVER
    assert calibration.sure_above(probabilities, labels, accuracy=0.1) == 0.9


def test_the_targets_of_three_classes_add_up_to_one():
    answers = np.tile(np.eye(3) * 0.85 + 0.05, (8, 1))
    found = calibration.with_temperature(answers, calibration.temperature(answers, np.arange(24) % 3))
    assert found.max(1) == pytest.approx(25 / 26, abs=1e-4)
