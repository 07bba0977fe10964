import numpy as np
import pytest
import torch
from short_trainers import short

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses import CSCLoss

Short = short("CMCTrainerAsPrinted")


def test_scans_of_two_patients_are_one_row_with_two_labels(unpaired):
    trainer = unpaired.trainer(Short)
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    assert batch["data"].shape == (4, 2, 16, 16, 16)
    assert batch["data"].flatten(2).any(2).all(), "both channels of every row have a scan"
    assert batch["target"].shape == (2, 2, 16, 16, 16)
    assert not batch["target"][:, 0].equal(batch["target"][:, 1])
    assert batch["fusion"].all()
    assert batch["pairs"].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    for row, (ct, mr) in enumerate(batch["keys"]):
        assert {ct[:2], mr[:2]} == {"ct", "mr"}, row


def test_each_modality_learns_from_the_label_of_its_own_patient(unpaired):
    trainer = unpaired.trainer(Short)
    trainer.initialize()
    batch = Batch(**next(trainer.get_dataloaders()[0]))
    output = trainer.network(batch.data, batch.fusion)
    target = batch.target.long()
    expected = torch.stack([trainer.loss(output.logits[:2, m], target[:, m : m + 1]) for m in range(2)]).mean()
    assert trainer.loss_terms(output, batch)["supervised"].item() == pytest.approx(expected.item())


def test_the_terms_are_the_printed_ones(cubes):
    trainer = cubes.trainer(Short)
    trainer.initialize()
    batch = Batch(**next(trainer.get_dataloaders()[0]))
    output = trainer.network(batch.data, batch.fusion)
    expected = CSCLoss("printed")(output.features, output.present)
    assert trainer.loss_terms(output, batch)["csc"].item() == pytest.approx(expected.item())


def test_it_trains_at_the_printed_rate(cubes):
    trainer = cubes.trainer(Short)
    trainer.initialize()
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.run_training()
    assert trainer.logger.get_value("lrs", None) == [1e-5, 1e-5]
    assert np.isfinite(trainer.logger.get_value("train_losses", None)).all()
    moved = max(float((p - q).detach().abs().max()) for p, q in zip(trainer.network.parameters(), before, strict=True))
    assert 0 < moved < 5e-5, "four steps of Adam move a weight by at most four times the rate"
