"""Training with plans of V-Net, which has batch norm and dropout as no other of our networks."""

import signal

import pytest
import torch
from plans import make_plans
from short_trainers import short

SIDE = 32  # its deepest map has 2 voxels along a side
NETWORK = {
    "patch_size": [SIDE] * 3, "encoder": "vnet", "encoder_kwargs": {"width": 2}, "decoder_channels": [4, 8, 16, 32],
}  # fmt: skip


def planned(cubes):
    plans = make_plans(NETWORK, "CMCTinyPlans", patch_size=[SIDE] * 3)
    cubes.plans |= {"configurations": plans["configurations"]}
    return cubes


@pytest.mark.parametrize("name", ["SupTrainer", "CMCTrainer"])
def test_it_trains_and_its_weights_predict_any_subset(cubes, name):
    trainer = planned(cubes).trainer(short(name, epochs=1))
    trainer.run_training()
    trained = trainer.network.state_dict()
    assert all(value.isfinite().all() for value in trained.values())
    again = type(trainer).build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 2, 2, False)
    norms = {key: value for key, value in again.state_dict().items() if key.endswith("running_mean")}
    assert norms
    assert not any(trained[key].equal(value) for key, value in norms.items()), "every batch norm has seen scans"
    again.load_state_dict(trained)
    x = torch.randn(2, 2, *[SIDE] * 3)
    with torch.no_grad():
        for given in ([1, 1], [1, 0], [0, 1]):
            shown = x * torch.tensor(given)[:, None, None, None]
            whole = again.eval()(shown)
            assert whole.equal(trainer.network.eval()(shown))
            torch.testing.assert_close(again(shown[:1]), whole[:1])


def test_several_processes_are_refused(registered):
    trainer = planned(registered).trainer(short("SupTrainer"))
    trainer.is_ddp = True
    with pytest.raises(ValueError, match="has batch norms, whose statistics several processes would not share: train"):
        trainer.initialize()


def test_dropout_is_the_same_after_an_interruption(registered):
    whole = planned(registered).trainer(short("SupTrainer"))
    whole.run_training()
    expected = {key: value.clone() for key, value in whole.network.state_dict().items()}

    first = registered.trainer(short("SupTrainer"))
    update = first.update

    def terminated(batch):
        if (first.current_epoch, first.iteration) == (1, 0):
            first._signal = signal.SIGTERM
        return update(batch)

    first.update = terminated
    with pytest.raises(SystemExit):
        first.run_training()
    resumed = registered.trainer(short("SupTrainer"))
    resumed.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    assert resumed.current_epoch == 1
    resumed.run_training()
    torch.testing.assert_close(resumed.network.state_dict(), expected, rtol=0, atol=0)
