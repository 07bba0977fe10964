"""Unlabelled scans are labelled whole in rounds of a training, and teach from then on."""

import signal
from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from short_trainers import short

from nnunet_cmc.data.loading.cases import weight_of
from nnunet_cmc.trainers.recipes import CONTRAST_TEACHER, RECIPES
from nnunet_cmc.trainers.scan_labeler import label_scans, stability
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels

ROUNDS = RECIPES["PseudoLabelTrainer"]
WHOLE = replace(RECIPES["CMCTrainer_wholeScanLabelsOnly"], whole_scan_labels=WholeScanLabels((0.5,)))


def folder_of(trainer, number: int) -> Path:
    return Path(trainer.output_folder, "pseudo_labels", f"round_{number}")


def labels_of(trainer, number: int = 1) -> dict[str, np.ndarray]:
    files = folder_of(trainer, number).glob("*.b2nd")
    return {file.name.removesuffix("_seg.b2nd"): blosc2.open(str(file))[:] for file in files}


def weights_of(trainer, number: int) -> dict[str, float]:
    files = folder_of(trainer, number).glob("*.b2nd")
    return {file.name.removesuffix("_seg.b2nd"): weight_of(blosc2.open(str(file))) for file in files}


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def test_they_are_what_the_average_predicts_at_half_time_and_are_learned_from_then_on(cubes):
    cubes.add_unlabeled("extra", [0])
    trainer = cubes.trainer(short(WHOLE, epochs=4))
    seen, start = {}, trainer.on_epoch_start

    def note():
        if trainer.current_epoch == 2:
            for case in trainer.samplers.unlabeled_dataset.identifiers:
                seen[case] = torch.from_numpy(trainer.samplers.unlabeled_dataset.load_case(case)[0][:])
            seen["weights"] = {name: value.clone() for name, value in trainer.average.module.state_dict().items()}
            kept = weights(trainer)
            for parameter in trainer.network.parameters():
                parameter.data.zero_()  # predicts background everywhere
            start()
            trainer.network.load_state_dict(kept)
        else:
            start()

    trainer.on_epoch_start = note
    trainer.run_training()
    average = seen.pop("weights")
    found = labels_of(trainer)
    assert all(label.any() for label in found.values())
    assert found.keys() == seen.keys() == {*cubes.hidden(), "extra"}
    trainer.network.load_state_dict(average)
    trainer.network.eval()
    for case, image in seen.items():
        assert found[case].shape == (1, *image.shape[1:])
        with torch.no_grad():
            centre = image[:, 2:18, 4:20, 3:19]  # one window of the several that were averaged
            agreement = (trainer.network(centre[None])[0].argmax(0).numpy() == found[case][0, 2:18, 4:20, 3:19]).mean()
        assert agreement > 0.6, case
    terms = trainer.logger.get_checkpoint()
    assert terms["pseudo"][:2] == [0, 0]
    assert all(terms["pseudo"][2:])


@pytest.mark.parametrize(("recipe", "epochs"), [(WHOLE, 2), (ROUNDS, 3)])
def test_a_label_that_lies_beside_a_hidden_case_is_not_read(registered, recipe, epochs):
    for case in registered.hidden():
        (registered.images / f"{case}_seg.b2nd").write_bytes(b"not to be opened")
    trainer = registered.trainer(short(recipe, epochs))
    trainer.run_training()
    for number, _ in enumerate(recipe.whole_scan_labels.at):
        assert labels_of(trainer, number + 1).keys() == {*registered.hidden()}


def test_rows_learn_the_labels_at_their_own_voxels(registered):
    trainer = registered.trainer(short(WHOLE))
    folder = Path(registered.results, "labels")
    folder.mkdir(parents=True)
    trainer.initialize()
    trainer.get_dataloaders()
    for case in trainer.samplers.unlabeled_dataset.identifiers:
        image = trainer.samplers.unlabeled_dataset.load_case(case)[0][:]
        label = (image[:1] > 0.6).astype(np.int16)
        blosc2.asarray(label, urlpath=str(folder / f"{case}_seg.b2nd"))
    trainer.pseudo_labels = str(folder)
    batch = next(trainer.get_dataloaders()[0])
    image, label = batch["data"][len(batch["target"]) :, :1], batch["pseudo_targets"]
    assert label.shape == image.shape
    assert label.any()
    assert image[label > 0].mean() > image[label == 0].mean() + 0.5


@pytest.mark.parametrize(
    ("recipe", "number", "moment"), [(WHOLE, 1, "before"), (WHOLE, 1, "within"), (ROUNDS, 2, "within")]
)
def test_an_interrupted_training_goes_on_to_the_same_weights(registered, monkeypatch, recipe, number, moment):
    """Stopped while it makes the labels of the last round."""
    trainers = []
    for name in ("whole", "cut"):
        registered.results = registered.results.with_name(name)
        monkeypatch.setenv("nnUNet_results", str(registered.results))
        trainers.append(registered.trainer(short(recipe, epochs=number + 1)))
    whole, cut = trainers
    whole.run_training()

    module = "nnunet_cmc.trainers.scan_labeler.label_scans"

    def terminated(predictor, dataset, cases, folder):
        if Path(folder).name == f"round_{number}.unfinished":
            cut._signal = signal.SIGTERM
        if moment == "within" or cut._signal is None:
            label_scans(predictor, dataset, cases, folder)

    with monkeypatch.context() as patched:
        patched.setattr(module, terminated)
        with pytest.raises(SystemExit):
            cut.run_training()
    resumed = registered.trainer(short(recipe, epochs=number + 1))
    resumed.load_checkpoint(str(Path(cut.output_folder) / "checkpoint_latest.pth"))
    resumed.run_training()
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    for each in range(1, number + 1):
        assert weights_of(resumed, each) == weights_of(whole, each)
        expected, found = labels_of(whole, each), labels_of(resumed, each)
        assert expected.keys() == found.keys() == {*registered.hidden()}
        assert all(np.array_equal(label, found[case]) for case, label in expected.items())


def test_a_checkpoint_without_the_average_is_refused(registered):
    trainer = registered.trainer(short(WHOLE))
    trainer.initialize()
    state = {**trainer.own_state(), "average_state": None}
    with pytest.raises(ValueError, match="has no moving average of the weights, which labels the unlabelled scans"):
        trainer.load_own_state(state)


def test_labels_that_are_newer_than_the_checkpoint_are_made_anew(registered, monkeypatch):
    """After a crash in the last epoch the training goes on from the first one's end: round 2 is of later weights."""
    whole = registered.trainer(short(ROUNDS, epochs=3))
    whole.run_training()
    registered.results = registered.results.with_name("cut")
    monkeypatch.setenv("nnUNet_results", str(registered.results))
    cut = registered.trainer(short(ROUNDS, epochs=3))
    end = cut.on_epoch_end

    def stop():
        if cut.current_epoch == 2:
            raise KeyboardInterrupt
        cut.save_every = 1 if cut.current_epoch == 0 else 100
        cut.disable_checkpointing = cut.current_epoch == 1  # of the best as well
        end()

    cut.on_epoch_end = stop
    with pytest.raises(KeyboardInterrupt):
        cut.run_training()
    for file in folder_of(cut, 2).glob("*.b2nd"):
        file.write_bytes(b"not to be opened")
    resumed = registered.trainer(short(ROUNDS, epochs=3))
    resumed.load_checkpoint(str(Path(cut.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 1
    resumed.run_training()
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)
    assert weights_of(resumed, 2) == weights_of(whole, 2)


def dice_by_hand(before: np.ndarray, after: np.ndarray, num_classes: int) -> float:
    """Mean Dice over the foreground classes, from sets of voxels."""
    found = []
    for value in range(1, num_classes):
        first, second = ({*map(tuple, np.argwhere(label == value))} for label in (before, after))
        if first or second:
            found.append(2 * len(first & second) / (len(first) + len(second)))
    return sum(found) / len(found) if found else 1.0


def test_in_the_second_round_rows_weigh_as_much_as_their_scans_are_stable(cubes):
    trainer = cubes.trainer(short(ROUNDS, epochs=3))
    seen: dict[int, list] = {0: [], 1: [], 2: []}
    update = trainer.update

    def noting(batch):
        n = len(batch["target"])
        rows = zip(batch["keys"][n:], batch["pseudo_weights"].tolist(), strict=True) if len(batch["keys"]) > n else ()
        seen[trainer.current_epoch] += rows
        return update(batch)

    trainer.update = noting
    trainer.run_training()
    before, after, found = labels_of(trainer, 1), labels_of(trainer, 2), weights_of(trainer, 2)
    assert found == pytest.approx({case: dice_by_hand(before[case], after[case], 2) for case in after})
    assert min(found.values()) < 1, "two epochs have changed something"
    assert not seen[0]
    assert {weight for _, weight in seen[1]} == {1.0}
    assert seen[2]
    assert all(weight == pytest.approx(found[case]) for case, weight in seen[2])
    assert "Weights of the scans: mean" in Path(trainer.log_file).read_text()


@given(labels=arrays(np.int16, (2, 1, 2, 3, 2), elements=st.integers(0, 3)))
def test_stability_is_the_mean_dice_of_the_classes_that_occur(labels):
    assert stability(*labels, 4) == pytest.approx(dice_by_hand(*labels, 4))


def test_stability_of_empty_classes():
    nothing = np.zeros((1, 2, 2, 2), np.int16)
    one = nothing.copy()
    one[0, 0] = 1
    two = one.copy()
    two[0, 1] = 2
    assert stability(nothing, nothing, 3) == 1
    assert stability(one, one, 3) == 1, "class 2 is in neither"
    assert stability(one, nothing, 3) == 0
    assert stability(one, two, 3) == 0.5, "class 2 is in one of them"


@pytest.mark.parametrize("at", [(), (0.5, 0.5), (0.6, 0.3), (0.0,), (1.0,), (0.5, 1.2)])
def test_rounds_rise_within_the_training(at):
    with pytest.raises(ValueError, match="are not increasing fractions of a training: give"):
        WholeScanLabels(at)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_of_a_batch_is_neither_nothing_nor_all(share):
    with pytest.raises(ValueError, match="of a batch is impossible: give one between 0 and 1"):
        WholeScanLabels(share=share)


@given(share=st.floats(0.01, 0.99), batch_size=st.integers(2, 20))
def test_a_batch_stays_as_large_and_keeps_a_labelled_pair(share, batch_size):
    pairs, replaced = replace(WHOLE, whole_scan_labels=WholeScanLabels(share=share)).unlabeled_pairs(batch_size)
    assert pairs == replaced
    assert 1 <= pairs < batch_size
    assert abs(pairs - share * batch_size) <= 1


def test_rounds_are_due_from_the_epoch_that_is_nearest_to_their_share():
    labels = WholeScanLabels((1 / 3, 2 / 3))
    assert [labels.rounds_before(epoch, 6) for epoch in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [labels.rounds_before(epoch, 4) for epoch in range(4)] == [0, 1, 1, 2]
    assert labels.rounds_before(0, 1) == 0
    assert [WholeScanLabels((0.7,)).rounds_before(epoch, 3) for epoch in range(3)] == [0, 0, 1], "before the last"


def test_labels_that_went_missing_are_predicted_again_if_their_folder_is_removed(registered):
    trainer = registered.trainer(short(WHOLE, epochs=4))
    end = trainer.on_epoch_end

    def stop():
        end()
        if trainer.current_epoch == 3:
            raise KeyboardInterrupt

    trainer.save_every, trainer.on_epoch_end = 1, stop
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    for file in folder_of(trainer, 1).iterdir():
        file.unlink()
    for remedied in (False, True):
        resumed = registered.trainer(short(WHOLE, epochs=4))
        resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        if remedied:
            folder_of(trainer, 1).rmdir()
            resumed.run_training()
            assert labels_of(trainer).keys() == {*registered.hidden()}
        else:
            with pytest.raises(ValueError, match=r"Case \w+: its pseudo-label .* is missing or damaged: remove"):
                resumed.run_training()


def test_labels_of_an_earlier_training_are_forgotten(registered):
    trainer = registered.trainer(short(WHOLE))
    stale = folder_of(trainer, 1)
    stale.mkdir(parents=True)
    (stale / "stale_seg.b2nd").write_bytes(b"")
    trainer.run_training()
    assert labels_of(trainer).keys() == {*registered.hidden()}


def test_a_teacher_beside_them_is_refused():
    with pytest.raises(ValueError, match=r"Teacher and WholeScanLabels cannot be combined"):
        replace(CONTRAST_TEACHER, whole_scan_labels=WholeScanLabels())


def test_what_labels_has_the_weights_of_the_last_validation(unpaired):
    trainer = unpaired.trainer(short("CMCTrainer"))
    trainer.initialize()
    trainer.calibrate(np.array([[[90, 0], [0, 10]], [[90, 0], [5, 5]]]))
    networks = trainer.bare_network, trainer.average.module
    found = [network.fusion_weights.reliability.tolist() for network in networks]
    assert found[0] == found[1]
    assert found[0][0] > found[0][1] > 0
