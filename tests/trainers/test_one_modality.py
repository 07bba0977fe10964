"""A recipe that shows one modality alone."""

import pytest
import torch
from short_trainers import short


@pytest.mark.parametrize("only", [0, 1])
def test_the_other_modality_is_neither_drawn_nor_seen(cubes, only):
    trainer = cubes.trainer(short(f"CMCTrainerPaper_onlyModality{only}"))
    trainer.initialize()
    loaders = trainer.get_dataloaders()
    present = cubes.dataset_json["cmc"]["present_channels"]
    for _ in range(3):
        batch = next(loaders[0])
        assert all(only in present[case] for case in batch["keys"])
        assert not batch["data"][:, 1 - only].any()
        assert batch["data"][:, only].flatten(1).any(1).all()
    assert all(only in present[case] for case in trainer.do_split()[1]), "it validates on cases that it can predict"
    x = torch.randn(1, 2, 16, 16, 16)
    other = x.clone()
    other[:, 1 - only] = torch.randn(1, 16, 16, 16)
    network = trainer.network.eval().requires_grad_(False)
    with torch.no_grad():
        assert network(x).equal(network(other))
        predicted = network.predictions(x)
    explained = network.combine(predicted.logits, predicted.present)  # by `nnunet_cmc explain`
    torch.testing.assert_close(explained, network(x))


def test_the_last_of_three_modalities(three):
    trainer = three.trainer(short("CMCTrainerPaper_onlyModality2"))
    trainer.run_training()
    changed = {name.split(".")[1] for name, p in trainer.network.named_parameters() if p.grad is not None}
    assert changed & {"0", "1", "2"} == {"2"}, "encoder and decoder of that modality alone have learned"


def test_a_modality_that_the_dataset_lacks(registered):
    with pytest.raises(ValueError, match="no modality 2, as the dataset has 2, numbered from 0: name a trainer of"):
        registered.trainer(short("CMCTrainerPaper_onlyModality2")).initialize()
