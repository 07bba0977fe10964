"""MMFormerTrainer trains, is interrupted and goes on, and predicts from any subset of the modalities."""

from itertools import product

import torch
from short_trainers import short

from nnunet_cmc.data.loading.batch import Batch

Short = short("MMFormerTrainer", iterations=1)


def test_every_part_trains_on_registered_and_unpaired_scans_and_any_subset_predicts(cubes):
    trainer = cubes.trainer(Short)
    trainer.initialize()
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer.run_training()
    still = [name for name, value in trainer.network.named_parameters() if value.equal(before[name])]
    assert all(".seg_layers.0." in name for name in still), still  # of the coarsest resolution, which does not count
    assert trainer.samplers.unlabeled_dataset.identifiers, "there are, and nothing is learned from them"
    subsets = torch.tensor(list(product([False, True], repeat=2))[1:])
    x = torch.randn(3, 2, 16, 16, 16) * subsets[:, :, None, None, None]
    with torch.no_grad():
        logits = trainer.network.eval()(x)
    assert logits.isfinite().all()
    assert not logits[0].allclose(logits[2])


def test_subsets_of_registered_scans_are_shown_and_every_modality_is_predicted_alone(three):
    trainer = three.trainer(Short)
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    shown = set()
    for _ in range(20):
        batch = Batch(**next(loader))
        shown |= {tuple(row) for row in batch.predicted.tolist()}
    assert shown == {*product([False, True], repeat=3)} - {(False,) * 3}
    while not batch.predicted[: batch.n_labeled, 0].any():  # the first encoder's gradient is looked at below
        batch = Batch(**next(loader))
    output = trainer.network(batch.data, batch.fusion)
    predicted = output.logits.flatten(2).any(2)
    assert predicted.equal(batch.predicted)
    assert output.auxiliary["alone"][0].flatten(2).any(2).all()
    values = trainer.loss_terms(output, batch)
    assert values.keys() == {"supervised", "auxiliary"}
    for value in values.values():
        gradients = torch.autograd.grad(value, list(trainer.network.encoders[0].parameters()), retain_graph=True)
        assert any(gradient.any() for gradient in gradients)
