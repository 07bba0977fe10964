"""Every compared system with three modalities."""

from itertools import product

import pytest
import torch
from short_trainers import short

from nnunet_cmc.trainers.compared import COMPARED
from nnunet_cmc.trainers.teacher import MeanTeacher, Teacher


def air(batch: dict) -> dict:
    """A batch like this one, whose patches all lie outside of their scans."""
    empty = {key: torch.zeros_like(batch[key]) for key in ("data", "strong") if key in batch}
    swaps = {"swaps": batch["swaps"][:0]} if "swaps" in batch else {}
    return {**batch, **empty, **swaps}


@pytest.mark.parametrize("name", COMPARED)
def test_it_trains_and_predicts_any_subset_and_a_teacher_can_copy_it(three, name):
    """On batches with scans, and on one without."""
    trainer = three.trainer(short(name))
    update = trainer.update

    def shown(batch):
        return update(air(batch) if (trainer.current_epoch, trainer.iteration) == (1, 1) else batch)

    trainer.update = shown
    trainer.run_training()
    network = trainer.network.eval()
    assert all(value.isfinite().all() for value in network.state_dict().values())

    teacher = MeanTeacher(network, Teacher(), iterations=4)
    teacher.update_parameters(network)
    subsets = torch.tensor([*product([False, True], repeat=3)][1:])
    x = torch.randn(3, 16, 16, 16) * subsets[:, :, None, None, None]
    with torch.no_grad():
        logits = network(x)
        torch.testing.assert_close(teacher(x), logits, rtol=0, atol=0)
    assert logits.shape == (7, 2, 16, 16, 16)
    assert logits.isfinite().all()
    assert len(logits.flatten(1).unique(dim=0)) == 7, "each subset is predicted from what it shows"
    assert not {*map(id, teacher.parameters())} & {*map(id, network.parameters())}
