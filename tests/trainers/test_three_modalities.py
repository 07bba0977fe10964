"""Every compared system with three modalities."""

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
def test_it_trains_and_a_teacher_can_copy_it(three, name):
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
    x = torch.randn(2, 3, 16, 16, 16)
    x[1, 1] = 0
    with torch.no_grad():
        torch.testing.assert_close(teacher(x), network(x), rtol=0, atol=0)
    assert not {*map(id, teacher.parameters())} & {*map(id, network.parameters())}
