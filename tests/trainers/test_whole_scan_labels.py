"""Unlabelled scans are labelled whole once in a training, and teach from then on."""

from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from short_trainers import short

from nnunet_cmc.trainers.recipes import RECIPES, SHAPES
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels

LESIONS = RECIPES["CMCTrainer_wholeScanLabelsOnly"]


def labels_of(trainer) -> dict[str, np.ndarray]:
    folder = Path(trainer.output_folder, "pseudo_labels")
    return {file.name.removesuffix("_seg.b2nd"): blosc2.open(str(file))[:] for file in folder.glob("*.b2nd")}


def test_they_are_what_the_network_predicts_at_half_time_and_are_learned_from_then_on(cubes):
    cubes.add_unlabeled("extra", [0])
    trainer = cubes.trainer(short(LESIONS, epochs=4))
    seen, start = {}, trainer.on_epoch_start

    def note():
        if trainer.current_epoch == 2:
            trainer.network.eval()
            for case in trainer.unlabeled_dataset.identifiers:
                image = torch.from_numpy(trainer.unlabeled_dataset.load_case(case)[0][:])
                seen[case] = image
            weights = {name: value.clone() for name, value in trainer.network.state_dict().items()}
            seen["weights"] = weights
        start()

    trainer.on_epoch_start = note
    trainer.run_training()
    weights = seen.pop("weights")
    found = labels_of(trainer)
    assert found.keys() == seen.keys() == {*cubes.hidden(), "extra"}
    trainer.network.load_state_dict(weights)
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


def test_a_label_that_lies_beside_a_hidden_case_is_not_read(registered):
    for case in registered.hidden():
        (registered.images / f"{case}_seg.b2nd").write_bytes(b"not to be opened")
    trainer = registered.trainer(short(LESIONS))
    trainer.run_training()
    assert labels_of(trainer).keys() == {*registered.hidden()}


def test_rows_learn_the_labels_at_their_own_voxels(registered):
    trainer = registered.trainer(short(LESIONS))
    folder = Path(registered.results, "labels")
    folder.mkdir(parents=True)
    trainer.initialize()
    trainer.get_dataloaders()
    for case in trainer.unlabeled_dataset.identifiers:
        image = trainer.unlabeled_dataset.load_case(case)[0][:]
        label = (image[:1] > 0.6).astype(np.int16)
        blosc2.asarray(label, urlpath=str(folder / f"{case}_seg.b2nd"))
    trainer.pseudo_labels = str(folder)
    batch = next(trainer.get_dataloaders()[0])
    image, label = batch["data"][len(batch["target"]) :, :1], batch["pseudo_targets"]
    assert label.shape == image.shape
    assert label.any()
    assert image[label > 0].mean() > image[label == 0].mean() + 0.5


@pytest.mark.parametrize("moment", ["before", "within"])
def test_an_interrupted_training_goes_on_to_the_same_weights(registered, monkeypatch, moment):
    trainers = []
    for name in ("whole", "cut"):
        registered.results = registered.results.with_name(name)
        monkeypatch.setenv("nnUNet_results", str(registered.results))
        trainers.append(registered.trainer(short(LESIONS, epochs=2)))
    whole, cut = trainers
    whole.run_training()

    module = "nnunet_cmc.trainers.labeling_trainer.label_scans"

    def terminated(predictor, dataset, cases, folder, after_each):
        from nnunet_cmc.trainers.whole_scan_labels import label_scans

        if moment == "within":
            label_scans(predictor, dataset, cases[:1], folder, lambda: None)
        cut._terminated = True
        after_each()

    with monkeypatch.context() as patched:
        patched.setattr(module, terminated)
        with pytest.raises(SystemExit):
            cut.run_training()
    resumed = registered.trainer(short(LESIONS, epochs=2))
    resumed.load_checkpoint(str(Path(cut.output_folder) / "checkpoint_latest.pth"))
    resumed.run_training()
    expected, found = whole.network.state_dict(), resumed.network.state_dict()
    assert all(value.equal(found[name]) for name, value in expected.items())
    assert all(value.equal(torch.from_numpy(labels_of(resumed)[case])) if isinstance(value, torch.Tensor) else
               np.array_equal(value, labels_of(resumed)[case]) for case, value in labels_of(whole).items())  # fmt: skip


def test_labels_of_an_earlier_training_are_forgotten(registered):
    trainer = registered.trainer(short(LESIONS))
    stale = Path(trainer.output_folder, "pseudo_labels")
    stale.mkdir(parents=True)
    (stale / "stale_seg.b2nd").write_bytes(b"")
    trainer.run_training()
    assert labels_of(trainer).keys() == {*registered.hidden()}


def test_a_teacher_beside_them_is_refused():
    with pytest.raises(ValueError, match=r"Teacher and WholeScanLabels cannot stand together"):
        replace(SHAPES, whole_scan_labels=WholeScanLabels())
