import os
import subprocess
import sys

import pytest
import torch

from nnunet_cmc.losses import CSCLoss, MovingAverageBank


def test_first_value_as_is_then_moving_average_of_what_is_seen():
    bank = MovingAverageBank((2, 2), (3,), momentum=0.9)
    ones = torch.ones(2, 2, 3)
    bank.update(ones * 4, torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
    assert bank.filled.tolist() == [[True, False], [True, False]]
    assert bank.value[:, :, 0].tolist() == [[2.0, 0.0], [4.0, 0.0]]

    bank.update(ones * 3, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert bank.filled.tolist() == [[True, True], [True, False]]
    torch.testing.assert_close(bank.value[:, :, 0], torch.tensor([[0.9 * 2 + 0.1 * 3, 3.0], [4.0, 0.0]]))


def test_entries_without_features():
    bank = MovingAverageBank((2,), momentum=0.5)
    for total in (4.0, 8.0):
        bank.update(torch.tensor([total, 0.0]), torch.tensor([2.0, 0.0]))
    assert bank.value.tolist() == [3.0, 0.0]
    assert bank.filled.tolist() == [True, False]


def test_complete_takes_the_batch_with_gradient_and_the_bank_where_the_batch_is_silent():
    bank = MovingAverageBank((3,), (2,))
    bank.update(torch.full((3, 2), 7.0), torch.tensor([1.0, 1.0, 0.0]))
    totals = torch.full((3, 2), 6.0, requires_grad=True)
    values, known = bank.complete(totals, torch.tensor([2.0, 0.0, 0.0]))
    assert values[:, 0].tolist() == [3.0, 7.0, 0.0]
    assert known.tolist() == [True, True, False]
    values.sum().backward()
    assert totals.grad[:, 0].tolist() == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_overflow_does_not_enter_the_bank(bad):
    bank = MovingAverageBank((2,), (2,))
    bank.update(torch.ones(2, 2), torch.ones(2))
    bank.update(torch.tensor([[bad, 1.0], [2.0, 2.0]]), torch.ones(2))
    torch.testing.assert_close(bank.value, torch.tensor([[1.0, 1.0], [1.01, 1.01]]))


def test_state_dict_carries_the_bank():
    loss = CSCLoss("unpaired", num_modalities=2, num_classes=3, num_channels=4)
    loss(torch.randn(2, 2, 4, 2, 2, 2), torch.ones(2, 2, dtype=torch.bool), torch.rand(2, 2, 3, 2, 2, 2))
    resumed = CSCLoss("unpaired", num_modalities=2, num_classes=3, num_channels=4)
    resumed.load_state_dict(loss.state_dict())
    assert resumed.prototypes.filled.all()
    assert resumed.prototypes.value.equal(loss.prototypes.value)
    assert resumed.prototypes.value.abs().min() > 0


RANK = """
import sys
import torch, torch.distributed as dist
from nnunet_cmc.losses import CACLoss, CSCLoss

rank, folder = int(sys.argv[1]), sys.argv[2]
if rank < 2:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
losses = CSCLoss("unpaired", num_modalities=2, num_classes=3, num_channels=4), CACLoss(
    "unpaired", num_modalities=2, num_classes=3)
generator = torch.Generator().manual_seed(0)
for step in range(3):
    features = torch.randn(4, 2, 4, 2, 2, 2, generator=generator)
    probabilities = torch.rand(4, 2, 3, 2, 2, 2, generator=generator).softmax(2)
    positions = torch.rand(4, 2, 3, 2, 2, 2, generator=generator)
    present = torch.rand(4, 2, generator=generator) < 0.7
    # rank 0 holds all rows at the last step and rank 1 none; "rank 2" runs alone and sees both ranks' rows
    cut = 4 if step == 2 else 2
    rows = [slice(0, cut), slice(cut, 4), slice(0, 4)][rank]
    losses[0](features[rows], present[rows], probabilities[rows])
    losses[1](probabilities[rows], present[rows], positions[rows])
torch.save([loss.state_dict() for loss in losses], f"{folder}/{rank}.pt")
if rank < 2:
    dist.barrier()
    dist.destroy_process_group()  # gloo's threads abort a process that exits without
"""


def test_ranks_hold_the_same_bank(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", RANK, str(rank), str(tmp_path)] for rank in range(3)]
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        assert [process.wait(timeout=100) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
    first, second, alone = (torch.load(tmp_path / f"{rank}.pt") for rank in range(3))
    for i in range(2):
        for name, value in first[i].items():
            assert value.equal(second[i][name])
            torch.testing.assert_close(value, alone[i][name])
        assert len(first[i]) == 2
