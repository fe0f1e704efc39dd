import contextlib
import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import BLUE, RED, noise, plain, small
from torch.nn import functional as F

from helpers import cards, catalog, images, inference, networks, recipes, training
from helpers.images import Examples
from helpers.recipes import Phase, Recipe

CPU = torch.device("cpu")
RIGHT, WRONG = math.log1p(math.exp(-2)), math.log1p(math.exp(2))  # the loss of logits (1, -1) and of (-1, 1)
FIGURES = ("loss", "accuracy", "precision", "recall", "f1")


def run(network, examples, recipe, **options):
    options = {"cache": Path("never written"), "report": lambda line: None} | options
    return training.train(network, examples, recipe, CPU, **options)


def comparable(history):
    return history.drop(columns="seconds")


def same(network, other):
    own, others = network.state_dict(), other.state_dict()
    return all(torch.equal(own[name], others[name]) for name in own)


@pytest.fixture(scope="module")
def eight():
    """Eight images of noise, the same ones to learn and to validate: what is learned is known by heart."""
    return Examples(noise(8), np.array([0, 1, 1, 0, 1, 0, 0, 1]), np.arange(8), np.arange(8))


@pytest.fixture(scope="module")
def recipe():
    """All kinds of phases, with augmentation and batch norm in what they train."""
    phases = [Phase("head", "head", 2), Phase("half", "stage 3", 2, 0.001), Phase("whole", "all", 2, 0.001)]
    return Recipe(phases, batch_size=3, seed=5)


@pytest.fixture(scope="module")
def unbroken(eight, recipe):
    network = small()
    return run(network, eight, recipe), network


@pytest.fixture
def still(halves):
    """A recipe that changes nothing: its losses are those of the weights written by hand."""

    def make(epochs, **options):
        phases = [Phase("still", "all", epochs, 0.0)]
        return Recipe(phases, batch_size=4, seed=0, label_smoothing=0.0, normalization=halves, **options)

    return make


def test_eight_images_are_learned_by_heart(eight):
    network = small()
    history = run(network, eight, Recipe([Phase("all", "all", 25, 0.002)], 8, 0, label_smoothing=0.0, keep_norms=False))
    assert history["validation_accuracy"].iloc[-1] == 1
    assert history["validation_loss"].min() < 0.1 < history["validation_loss"].iloc[0]
    model = cards.Model(network, {"normalization": networks.IMAGENET_NORMALIZATION, "mirrored": False})
    answers = inference.probabilities(model, eight.images, np.arange(8), CPU)
    assert answers.argmax(1).tolist() == eight.labels.tolist()


def test_what_is_frozen_stays_equal_bit_for_bit(eight):
    network = small()
    before = copy.deepcopy(network.state_dict())
    run(network, eight, Recipe([Phase("half", "stage 4", 3, 0.001)], 3, seed=0))
    changed = {
        name.split(".")[0] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"12", "13", "18"}  # the last convolution, the scale and shift of its norm, and the head


def test_the_same_seed_gives_the_same_history_and_weights(eight, recipe, unbroken):
    history, network = unbroken
    again = small()
    pd.testing.assert_frame_equal(comparable(run(again, eight, recipe)), comparable(history), check_exact=True)
    assert same(again, network)


def test_another_seed_gives_another_history(eight, recipe, unbroken):
    other = run(small(), eight, dataclasses.replace(recipe, seed=6))
    stepped = slice(1, None)  # the solved head may reach the lowest loss that there is, whatever the seed
    assert (other["train_loss"][stepped] != unbroken[0]["train_loss"][stepped]).all()


@pytest.mark.parametrize("epoch", [3, 4])  # within a phase, and at its end
def test_a_run_interrupted_in_any_epoch_goes_on_to_the_result_of_an_unbroken_one(
    eight, recipe, unbroken, tmp_path, monkeypatch, epoch
):
    monkeypatch.setattr(training, "_CHECKPOINT_RARITY", 0)

    def interrupt(line):
        if line.startswith(f"epoch {epoch:3d}/"):
            raise KeyboardInterrupt

    history, network = unbroken
    checkpoint = tmp_path / "folder" / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(small(), eight, recipe, checkpoint=checkpoint, report=interrupt)
    lines = []
    resumed = small()
    result = run(resumed, eight, recipe, checkpoint=checkpoint, report=lines.append)
    pd.testing.assert_frame_equal(comparable(result), comparable(history), check_exact=True)
    assert same(resumed, network)
    assert len([line for line in lines if line.startswith("epoch")]) == 6 - epoch
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.parametrize("other", [{"momentum": 0.9}, {"patience": 0}])
def test_runs_of_other_recipes_go_on_where_they_were_interrupted(eight, recipe, tmp_path, other):
    def interrupt(line):
        if line.startswith("epoch   3/"):
            raise KeyboardInterrupt

    recipe = dataclasses.replace(recipe, **other)
    network, resumed, checkpoint = small(), small(), tmp_path / "checkpoint.safetensors"
    history = run(network, eight, recipe)
    with pytest.raises(KeyboardInterrupt):
        run(small(), eight, recipe, checkpoint=checkpoint, report=interrupt)
    pd.testing.assert_frame_equal(
        comparable(run(resumed, eight, recipe, checkpoint=checkpoint)), comparable(history), check_exact=True
    )
    assert same(resumed, network)


def test_a_first_step_that_is_skipped_leaves_nothing_in_the_momentum(recipe):
    weight = torch.nn.Parameter(torch.ones(2))
    heavy = recipes.optimizer([weight], dataclasses.replace(recipe, weight_decay=0.0, momentum=0.5), 0.1, CPU)
    scaler = torch.amp.GradScaler("cpu", 4.0)
    for slope in (torch.tensor([math.inf, 1.0]), torch.tensor([1.0, 2.0])):
        heavy.zero_grad()
        scaler.scale((slope * weight).sum()).backward()
        scaler.step(heavy)
        scaler.update()
    torch.testing.assert_close(weight.detach(), 1 - 0.1 * 1.5 * torch.tensor([1.0, 2.0]))


def test_training_keeps_no_gradients(eight, unbroken):
    assert all(parameter.grad is None for parameter in unbroken[1].parameters())


def test_a_gpu_that_is_too_small_is_told_with_what_helps(eight, recipe, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "_run", full)
    with pytest.raises(MemoryError, match="too little memory for this: choose a smaller batch_size, smaller images"):
        run(small(), eight, recipe)


def test_the_optimizer_is_adamw_or_with_momentum_that_of_nesterov(recipe):
    weight = torch.nn.Parameter(torch.ones(2))
    adam = recipes.optimizer([weight], dataclasses.replace(recipe, weight_decay=0.3), 0.02, CPU)
    assert (type(adam), adam.defaults["lr"], adam.defaults["weight_decay"]) == (torch.optim.AdamW, 0.02, 0.3)
    heavy = recipes.optimizer([weight], dataclasses.replace(recipe, weight_decay=0.0, momentum=0.5), 0.1, CPU)
    for _ in range(2):
        weight.grad = torch.tensor([1.0, 2.0])
        heavy.step()
    # steps of 1.5 and 1.75 gradients: the gradient, and half of the velocity, which was 1 and is 1.5
    torch.testing.assert_close(weight.detach(), 1 - 0.1 * 3.25 * torch.tensor([1.0, 2.0]))


def test_a_finished_run_is_not_trained_again(eight, recipe, unbroken, tmp_path):
    checkpoint, lines = tmp_path / "checkpoint.safetensors", []
    first = run(small(), eight, recipe, checkpoint=checkpoint)
    again = small(seed=1)
    second = run(again, eight, recipe, checkpoint=checkpoint, report=lines.append)
    assert lines == ["Going on after epoch 5 of an earlier run"]
    pd.testing.assert_frame_equal(second, first, check_exact=True)  # the seconds too: they were not spent again
    assert same(again, unbroken[1])


def test_a_checkpoint_that_broke_is_not_used(eight, recipe, unbroken, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    run(small(), eight, recipe, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    again = small()
    assert len(run(again, eight, recipe, checkpoint=checkpoint)) == 5
    assert same(again, unbroken[1])


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(eight, recipe, tmp_path, monkeypatch):
    def full(tensors, path, *_):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    checkpoint = tmp_path / "checkpoint.safetensors"
    run(small(), eight, dataclasses.replace(recipe, phases=recipe.phases[:1]), checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    monkeypatch.setattr(training.checkpoints.safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        run(small(), eight, recipe, checkpoint=checkpoint)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_what_goes_on_from_a_checkpoint_does_not_hold_its_file(eight, recipe, tmp_path):
    checkpoint, network = tmp_path / "checkpoint.safetensors", small()
    run(network, eight, dataclasses.replace(recipe, phases=recipe.phases[:1]), checkpoint=checkpoint)
    with training.checkpoints.safetensors.safe_open(checkpoint, "pt") as opened:
        key = opened.metadata()["key"]
    state = training.checkpoints.load(checkpoint, key)
    with checkpoint.open("r+b") as file:
        file.write(bytes(checkpoint.stat().st_size))
    assert all(torch.equal(state.network[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("other", ["identity", "recipe", "examples", "labels", "validation"])
def test_the_checkpoint_of_another_run_is_not_used(eight, recipe, unbroken, tmp_path, other):
    checkpoint, lines = tmp_path / "checkpoint.safetensors", []
    another = dataclasses.replace(recipe, phases=recipe.phases[:1], weight_decay=0.0)
    fewer, unlike = eight._replace(train=eight.train[:4]), eight._replace(labels=1 - eight.labels)
    first = {
        "identity": {"examples": eight, "recipe": recipe, "identity": "resnet18"},
        "recipe": {"examples": eight, "recipe": another},
        "examples": {"examples": fewer, "recipe": recipe},
        "labels": {"examples": unlike, "recipe": recipe},
        "validation": {"examples": eight._replace(validation=eight.validation[:4]), "recipe": recipe},
    }[other]
    run(small(seed=1), checkpoint=checkpoint, **first)
    history = run(small(), eight, recipe, checkpoint=checkpoint, report=lines.append)
    assert len([line for line in lines if line.startswith("epoch")]) == 5
    pd.testing.assert_frame_equal(comparable(history), comparable(unbroken[0]), check_exact=True)


@pytest.fixture
def harmful(halves):
    """A recipe whose last phase takes steps so large that the best epoch lies before it."""
    phases = [Phase("good", "all", 2, 0.03), Phase("harmful", "all", 2, 30.0)]
    return Recipe(phases, batch_size=2, seed=1, label_smoothing=0.0, normalization=halves)


@pytest.fixture
def disputed():
    """Red and blue images of which a quarter has the other label, so that too sure an answer is punished."""
    labels = np.array([BLUE, RED, BLUE, RED, BLUE, RED, RED, BLUE])
    return Examples(plain([BLUE, RED] * 4), labels, np.arange(8), np.arange(8))


def test_the_network_ends_with_the_weights_of_its_best_epoch(network, disputed, harmful):
    losses = run(network, disputed, harmful)["validation_loss"]
    assert losses.idxmin() == 1
    assert losses.iloc[-1] > 2 * losses.min()
    model = cards.Model(network, {"normalization": harmful.normalization, "mirrored": False})
    answers = inference.probabilities(model, disputed.images, np.arange(8), CPU)
    assert -np.log(answers[np.arange(8), disputed.labels]).mean() == pytest.approx(losses.min(), abs=1e-6)
    assert not network.training


def test_kept_marks_each_epoch_with_a_lower_loss_than_all_before(network, disputed, harmful):
    history = run(network, disputed, harmful)
    assert history["kept"].tolist() == [True, True, False, False]


def test_without_patience_the_last_epoch_of_each_phase_is_kept(network, disputed, harmful):
    history = run(network, disputed, dataclasses.replace(harmful, patience=0))
    assert history["kept"].tolist() == [False, True, False, True]
    assert history["validation_loss"].idxmin() == 1
    model = cards.Model(network, {"normalization": harmful.normalization, "mirrored": False})
    answers = inference.probabilities(model, disputed.images, np.arange(8), CPU)
    losses = -np.log(answers[np.arange(8), disputed.labels].clip(1e-6))
    assert losses.mean() > 2 * history["validation_loss"].min()


def test_without_patience_no_phase_ends_early(network, disputed, still):
    assert len(run(network, disputed, still(10, patience=0))) == 10


def test_each_phase_starts_from_the_best_so_far(network, disputed, harmful):
    recipe = dataclasses.replace(harmful, phases=[*harmful.phases, Phase("still", "all", 1, 0.0)])
    losses = run(network, disputed, recipe)["validation_loss"].tolist()
    assert losses[4] == losses[1] != losses[3]


def test_a_phase_ends_when_its_patience_does(network, disputed, still):
    history = run(network, disputed, still(10, patience=3))
    assert history["kept"].tolist() == [True, False, False, False]


def test_a_new_phase_has_its_own_patience(network, disputed, halves):
    phases = [Phase("a", "last stage", 9, 0.0), Phase("b", "all", 9, 0.0)]
    history = run(network, disputed, Recipe(phases, 4, seed=0, patience=2, normalization=halves))
    assert history["phase"].tolist() == ["a", "a", "a", "b", "b"]


def test_next_epoch_passes_over_what_is_done_stale_or_empty():
    phases = [Phase("a", "head", 0), Phase("b", "all", 2, 1.0), Phase("c", "all", 5, 1.0)]
    recipe = Recipe(phases, 4, seed=0, patience=2)
    rows = [{"phase": "b", "kept": True}, {"phase": "b", "kept": False}, {"phase": "c", "kept": True}]
    rows += [{"phase": "c", "kept": False}] * 2
    expected = [("b", 0), ("b", 1), ("c", 0), ("c", 1), ("c", 2), None]
    found = [recipes.next_epoch(rows[:count], recipe) for count in range(6)]
    assert [upcoming and (upcoming[0].name, upcoming[1]) for upcoming in found] == expected


def test_the_learning_rate_climbs_for_a_tenth_of_the_steps_and_falls_along_half_a_cosine():
    factors = [recipes.learning_rate_factor(step, 22) for step in range(23)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2 + 5] == pytest.approx(0.5 + math.sqrt(0.5) / 2)  # a quarter of the way down
    assert factors[2 + 10] == pytest.approx(0.5)
    assert factors[22] == pytest.approx(0)
    assert [recipes.learning_rate_factor(0, 1), recipes.learning_rate_factor(0, 3)] == [1.0, 1.0]


def test_the_history_keeps_the_learning_rate_of_the_last_step(network, disputed, halves):
    history = run(network, disputed, Recipe([Phase("a", "all", 2, 0.1)], 4, seed=0, normalization=halves))
    assert history["learning_rate"].tolist() == pytest.approx([0.1, 0.1 * 0.25])  # the second and fourth step of four


def test_rare_classes_weigh_more_so_that_each_counts_the_same():
    weights = recipes.class_weights(np.array([0, 0, 0, 1]), 2)
    assert weights.tolist() == pytest.approx([2 / 3, 2])


def test_class_weights_are_1_on_average_where_a_class_is_absent():
    labels = np.array([0, 0, 0, 2])
    weights = recipes.class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([2 / 3, 0, 2])
    assert weights[labels].mean().item() == pytest.approx(1)


def test_smoothing_makes_no_class_less_sure_than_another_however_rare():
    truth = np.array([0] * 9 + [1])
    loss = recipes.loss_function(truth, 2, 0.1, torch.device("cpu"))
    sure = torch.linspace(0.5, 0.999, 500)
    lowest = []
    for label in (0, 1):
        asked = torch.full((1,), label)
        logits = torch.stack([sure, 1 - sure] if label == 0 else [1 - sure, sure], 1).log()
        losses = [loss(one[None], asked).item() for one in logits]
        lowest.append(sure[np.argmin(losses)].item())
    assert lowest == pytest.approx([0.95, 0.95], abs=0.002)


def test_loss_and_accuracy_weigh_a_short_last_batch_fairly(network, still):
    colors = [BLUE, BLUE, RED, RED, BLUE]  # in batches of 3 and 2, with one and one wrong
    labels = np.array([BLUE, BLUE, BLUE, RED, RED])
    examples = Examples(plain(colors), labels, np.array([0, 3]), np.arange(5))
    history = run(network, examples, still(1))
    assert history["validation_loss"][0] == pytest.approx((3 * RIGHT + 2 * WRONG) / 5)
    assert history["validation_accuracy"][0] == 3 / 5
    for figure in ("precision", "recall", "f1"):  # blue: 2 of 3 called and 2 of 3 found; red: 1 of 2 and 1 of 2
        assert history[f"validation_{figure}"][0] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_precision_is_of_what_was_called_so_and_recall_of_what_is_so(network, still):
    labels = np.array([BLUE, RED, RED])  # all three are called blue
    history = run(network, Examples(plain([BLUE] * 3), labels, np.array([0, 1]), np.arange(3)), still(1))
    assert history["validation_precision"][0] == pytest.approx((1 / 3 + 0) / 2)
    assert history["validation_recall"][0] == pytest.approx((1 + 0) / 2)


def test_the_figures_of_a_solved_head_count_each_copy_with_its_own_label(network, halves):
    examples = Examples(plain([BLUE, RED] * 2), np.array([BLUE, RED] * 2), np.arange(4), np.arange(4))
    history = run(network, examples, Recipe([Phase("head", "head", 3)], 4, seed=0, normalization=halves))
    assert (history["samples"][0], history["train_accuracy"][0], history["validation_accuracy"][0]) == (12, 1, 1)


def test_validation_asks_the_network_as_it_will_answer(eight):
    network = small()
    recipe = Recipe([Phase("whole", "all", 2, 0.01)], 3, seed=0, label_smoothing=0.0, keep_norms=False, patience=0)
    history = run(network, eight, recipe)
    model = cards.Model(network, {"normalization": networks.IMAGENET_NORMALIZATION, "mirrored": False})
    answers = inference.probabilities(model, eight.images, np.arange(8), CPU)
    loss = -np.log(answers[np.arange(8), eight.labels]).mean()
    assert history["validation_loss"].iloc[-1] == pytest.approx(loss, rel=1e-4)


def test_the_loss_weighs_each_class_the_same(network, still):
    colors, labels = [BLUE, BLUE, BLUE, BLUE], np.array([BLUE, BLUE, BLUE, RED])
    examples = Examples(plain(colors), labels, np.arange(4), np.arange(4))
    history = run(network, examples, still(1))
    assert history["validation_loss"][0] == pytest.approx((3 * RIGHT * 2 / 3 + WRONG * 2) / 4)


def test_samples_are_the_training_images_though_the_last_batch_is_short(network, still):
    examples = Examples(plain([BLUE, RED] * 5), np.array([BLUE, RED] * 5), np.arange(7), np.arange(7, 10))
    history = run(network, examples, still(2))
    assert history["samples"].tolist() == [7, 7]
    assert history["train_accuracy"].tolist() == [1, 1]  # augmentation leaves red red


def test_the_losses_are_those_of_the_loop_written_out(eight):
    network, losses = small(), []
    networks.freeze(network, train="stage 3")
    networks.training_mode(network, keep_norms=True)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, weight_decay=0.01)
    for epoch in range(2):
        total, numbers = 0.0, images.random_numbers(8, 5, epoch)
        order = images.batches(np.arange(8), 3, training.seed_epoch(5, epoch + 1))
        for step, batch in enumerate(order):
            optimizer.param_groups[0]["lr"] = 0.01 * recipes.learning_rate_factor(3 * epoch + step, 6)
            pixels = images.augment(eight.images[batch], numbers[batch])
            logits = network(images.normalize(pixels, **networks.IMAGENET_NORMALIZATION))
            loss = F.cross_entropy(logits, torch.as_tensor(eight.labels[batch]), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / 8)
    history = run(small(), eight, Recipe([Phase("half", "stage 3", 2, 0.01)], 3, seed=5, copies=0))
    assert history["train_loss"].tolist() == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize(
    ("split", "remedy"), [("train", "smaller validation and test fractions"), ("validation", "a larger .* fraction")]
)
def test_an_empty_split_is_refused_with_the_remedy(network, disputed, still, split, remedy):
    examples = disputed._replace(**{split: np.array([], int)})
    with pytest.raises(ValueError, match=f"The {split} split is empty: prepare the data with {remedy}"):
        run(network, examples, still(1))


@pytest.mark.parametrize(
    ("epochs", "batch_size", "reason"),
    [(1, 0, "^batch_size=0 must be 1 or more"), (-2, 8, "^tuned: -2 epochs: give 0 or more")],
)
def test_impossible_numbers_are_refused_by_the_recipe(epochs, batch_size, reason):
    with pytest.raises(ValueError, match=reason):
        Recipe([Phase("tuned", "all", epochs)], batch_size, seed=0)


@pytest.mark.parametrize(("field", "value"), [("label_smoothing", -0.1), ("label_smoothing", 1.0), ("patience", -1)])
def test_impossible_fields_are_refused_by_the_recipe(field, value):
    with pytest.raises(ValueError, match=f"^{field}={value} must be"):
        Recipe([Phase("tuned", "all", 1)], 8, seed=0, **{field: value})


def test_what_starts_from_nothing_learns_in_one_phase_and_anything_else_solves_its_head_first():
    solved, tuned = Phase("head", "head", 2), Phase("fine-tuning", "last stage", 3, 0.1)
    assert recipes.transfer("imagenet", solved, tuned, 8, 0, patience=5) == Recipe([solved, tuned], 8, 0, patience=5)
    whole = Phase("from scratch", "all", 3, 0.1)
    expected = Recipe([whole], 8, 0, keep_norms=False, patience=5)
    assert recipes.transfer("none", solved, tuned, 8, 0, patience=5) == expected


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_an_impossible_learning_rate_is_refused_by_the_recipe(rate):
    with pytest.raises(ValueError, match=f"^tuned: learning rate {rate} must be finite and 0 or more"):
        Recipe([Phase("tuned", "all", 1, rate)], 8, seed=0)


def test_checkpoints_take_a_tenth_of_the_time_at_most_but_the_last_one_is_there(
    network, disputed, still, tmp_path, monkeypatch
):
    saved, save, now = [], training.checkpoints.save, [0.0]

    def slowly(file, key, history, *rest):
        now[0] += 2.0
        saved.append(len(history))
        save(file, key, history, *rest)

    def learn(current, epoch, number, learn=training._learn):
        now[0] += 5.0
        return learn(current, epoch, number)

    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(training.checkpoints, "save", slowly)
    monkeypatch.setattr(training, "_learn", learn)
    run(network, disputed, dataclasses.replace(still(10), patience=0), checkpoint=tmp_path / "run.safetensors")
    assert saved == [1, 5, 9, 10]  # nine times 2 s are four epochs of 5 s


def test_phases_of_one_name_are_refused():
    phases = [Phase("tuned", "last stage", 1, 0.1), Phase("tuned", "all", 1, 0.1)]
    with pytest.raises(ValueError, match="tuned, tuned are not all different"):
        Recipe(phases, 4, seed=0)


def test_a_recipe_without_epochs_is_refused(network, disputed):
    recipe = Recipe([Phase("head", "head", 0), Phase("fine-tuning", "all", 0, 0.1)], 4, seed=0)
    with pytest.raises(ValueError, match="The recipe has no epochs: ask for copies to solve the head on"):
        run(network, disputed, recipe)


@pytest.mark.parametrize("batch_size", [2, 8])  # where one step is all, only the validation meets what it broke
def test_a_loss_that_is_no_longer_a_number_stops_the_run(eight, batch_size):
    recipe = Recipe([Phase("fine-tuning", "all", 1, 1e30)], batch_size, seed=0)
    with pytest.raises(FloatingPointError, match="epoch 1 is no longer a number: choose a lower fine-tuning learning"):
        run(small(), eight, recipe)


@pytest.fixture
def old_gpu(monkeypatch):
    """As on a GPU without bfloat16: gradients are scaled, as float16 needs it. The numbers stay those of float32."""
    monkeypatch.setattr(training.compute, "precision", lambda device: torch.float16)
    monkeypatch.setattr(training.compute, "autocast", lambda *_, **__: contextlib.nullcontext())


@pytest.mark.usefixtures("old_gpu")
def test_scaled_gradients_make_the_same_steps(network, disputed, halves):
    phases = [Phase("a", "all", 2, 0.1)]
    recipe = Recipe(phases, 4, seed=0, normalization=halves, momentum=0.9)  # AdamW's steps forget a scale by themselves
    plain = copy.deepcopy(network)
    scaled = run(network, disputed, recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.compute, "precision", lambda device: torch.float32)
        pd.testing.assert_frame_equal(comparable(scaled), comparable(run(plain, disputed, recipe)), rtol=1e-5)


def test_a_gradient_is_the_mean_over_the_batch_of_all_processes(network, disputed, halves, monkeypatch):
    phases = [Phase("a", "all", 1, 0.1)]
    recipe = Recipe(phases, 8, seed=0, weight_decay=0.0, momentum=0.5, normalization=halves)
    moved = []
    for times in (1, 2):  # a share of this many times as many images, in a batch of as many as before
        one = copy.deepcopy(network)
        monkeypatch.setattr(training.distributed, "share", lambda rows, times=times: rows.repeat(times))
        run(one, disputed, recipe)
        moved.append((one[4].weight - network[4].weight).detach())
    torch.testing.assert_close(moved[1], 2 * moved[0])


@pytest.mark.usefixtures("old_gpu")
def test_a_loss_that_float16_cannot_hold_says_so(eight):
    with pytest.raises(FloatingPointError, match='learning rate, or device="cpu", for this GPU computes in float16'):
        run(small(), eight, Recipe([Phase("fine-tuning", "all", 1, 1e30)], 8, seed=0))


def test_the_history_has_a_row_an_epoch_and_a_report_a_line(eight, recipe):
    lines = []
    history = run(small(), eight, recipe, report=lines.append)
    assert history.columns.tolist() == [
        "epoch",
        "phase",
        "learning_rate",
        *(f"{split}_{figure}" for split in ("train", "validation") for figure in FIGURES),
        "samples",
        "seconds",
        "kept",
    ]
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert history["phase"].tolist() == ["head", "half", "half", "whole", "whole"]
    assert [line.split()[1] for line in lines if line[:5] == "epoch"] == ["1/5", "2/5", "3/5", "4/5", "5/5"]


def test_a_line_of_the_log_says_what_an_epoch_learned():
    row = {"epoch": 3, "phase": "frozen", "train_loss": 0.51, "train_accuracy": 0.75, "validation_loss": 0.625}
    row |= {"validation_accuracy": 0.5, "seconds": 12.34, "kept": True}
    assert training._describe(row, 15) == (
        "epoch   3/15 frozen       loss 0.510 validation 0.625  accuracy 0.750 validation 0.500   12.3 s  kept"
    )
    assert training._describe(row | {"kept": False}, 15).endswith("12.3 s")


def test_training_leaves_the_random_numbers_of_others_alone(eight, recipe):
    network = small()
    before = torch.random.get_rng_state()
    run(network, eight, recipe)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture
def fit(dataset, halves, tmp_path):
    """Train small_cnn on a data set and the views asked for, with a folder of its own; gives what was reported."""

    def start(dataset, views=("side", "top")):
        lines, recipe = [], Recipe([Phase("whole", "all", 1, 0.001)], 8, seed=0, keep_norms=False, normalization=halves)
        pixels = images.load_images(dataset, 32, 32)
        training.fit(
            "small_cnn", "none", dataset, pixels, list(views), recipe, CPU, folder=tmp_path, report=lines.append
        )
        return lines

    return start


def test_a_run_on_fewer_images_leaves_the_checkpoint_of_the_whole_run_alone(dataset, fit):
    fit(dataset)
    assert fit(catalog.limit(dataset, 4, 0))[0].startswith("epoch")
    assert fit(dataset) == ["Going on after epoch 1 of an earlier run"]


def test_a_fit_learns_from_the_training_images_of_its_views_and_chooses_by_the_validation_images(
    dataset, halves, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(training, "train", lambda _, examples, *__, **___: asked.append(examples) or pd.DataFrame())
    pixels, made = images.load_images(dataset, 20, 32), []
    for seed in (3, 3, 4):
        recipe = Recipe([Phase("whole", "all", 1, 0.001)], 8, seed=seed, normalization=halves)
        what = ("small_cnn", "none", dataset, pixels, ["top"], recipe, CPU)
        made.append(training.fit(*what, folder=tmp_path))
    for split in ("train", "validation"):
        learned = dataset.catalog.iloc[getattr(asked[0], split)]
        expected = dataset.catalog.query("split == @split and view == 'top'")
        assert sorted(learned["path"]) == sorted(expected["path"])
    assert asked[0].labels.tolist() == dataset.labels().tolist()
    assert made[0].card["input"] == {"height": 20, "width": 32}
    assert made[0].card["training"] == dataclasses.asdict(dataclasses.replace(recipe, seed=3))
    assert same(made[0].network, made[1].network)
    assert not same(made[0].network, made[2].network)


def test_a_view_that_nobody_knows_is_refused_with_those_there_are(dataset, fit):
    with pytest.raises(ValueError, match=r"No view is called botom: there are \['side', 'top'\]"):
        fit(dataset, views=["side", "botom"])
