from pathlib import Path

import numpy as np
import pytest
import torch
from short_trainers import TAUGHT, resumed, short

from nnunet_cmc.data.loading.batch import Batch

Quiet, Alone = short(TAUGHT), short("MeanTeacherTrainer")


def started(trainer):
    """As nnU-Net's run_training up to its first iteration."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


def weights(network) -> dict:
    return {name: value.clone() for name, value in network.state_dict().items()}


def checkpoint_of(trainer) -> dict:
    return torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)


@pytest.mark.parametrize("cls", [Quiet, Alone])
def test_it_trains_and_the_network_is_a_cmcnet_like_any_other(cubes, cls):
    trainer = cubes.trainer(cls)
    trainer.run_training()
    checkpoint = checkpoint_of(trainer)
    plain = cubes.trainer(short("CMCTrainer_supervised" if cls is Alone else "CMCTrainerPaper"))
    plain.initialize()
    assert checkpoint["network_weights"].keys() == plain.network.state_dict().keys()
    assert {key.removeprefix("module.") for key in checkpoint["average_state"]} > checkpoint["network_weights"].keys()
    assert np.isfinite(checkpoint["logging"]["pseudo"]).all()
    assert checkpoint["logging"]["gamma"] == [0, 1], "what has learned nothing yet teaches nothing"
    assert ("csc" in checkpoint["logging"]) == ("cac" in checkpoint["logging"]) == (cls is Quiet)


def test_the_teacher_is_the_mean_of_the_first_students(registered):
    trainer = started(registered.trainer(Quiet))
    students = [weights(trainer.network)]
    assert all(value.equal(trainer.teacher.module.state_dict()[name]) for name, value in students[0].items())
    for _ in range(3):
        trainer.train_step(next(trainer.dataloader_train))
        students.append(weights(trainer.network))
    expected = {
        name: torch.stack([each[name] for each in students]).mean(0) if value.is_floating_point() else value
        for name, value in students[-1].items()
    }
    teacher = trainer.teacher.module.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(teacher[name], value, rtol=1e-5, atol=1e-7)
    assert not teacher["mia.bias"].equal(trainer.network.state_dict()["mia.bias"])


def test_a_resumed_run_equals_an_uninterrupted_one(registered):
    whole = registered.trainer(Quiet)
    whole.run_training()
    again = resumed(registered, Quiet)
    for part in ("network", "teacher"):
        expected, found = weights(getattr(whole, part)), weights(getattr(again, part))
        assert all(value.equal(found[name]) for name, value in expected.items())


class Opinion(torch.nn.Module):
    """A teacher that gives class 1 just above 0.9 at the first slice, just below at the second, and else class 0."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, data):
        self.seen.append(data)
        probability = torch.full((len(data), 2, *data.shape[2:]), 0.01)
        probability[:, 1, 0], probability[:, 1, 1] = 0.92, 0.88
        probability[:, 0] = 1 - probability[:, 1]
        return probability.log()


def test_only_confident_voxels_of_the_weak_view_teach_each_modality(registered):
    trainer = started(registered.trainer(Quiet))
    trainer.teacher.module = Opinion()
    batch = Batch(**next(trainer.dataloader_train))
    n_labeled = batch.n_labeled
    weak, strong = batch.data[n_labeled:], batch.strong
    assert not weak.equal(strong)
    taught = trainer.teacher.teach(batch, num_classes=2)
    labels = taught.pseudo_targets
    assert trainer.teacher.module.seen[0].equal(weak)
    assert (labels[:, 0, 0] == 1).all()
    assert (labels[:, 0, 1] == 2).all()
    assert (labels[:, 0, 2:] == 0).all()

    assert taught.data.equal(torch.cat([batch.data[:n_labeled], strong]))
    output = trainer.network(taught.data, taught.fusion)
    term = trainer.loss_terms(output, taught)["pseudo"]
    gradient = torch.autograd.grad(term, output.logits)[0]
    assert not gradient[:n_labeled].any()
    assert gradient[n_labeled:, :, :, 0].flatten(2).any(2).all(), "every modality of every unlabelled row learns"
    assert not gradient[n_labeled:, :, :, 1].any(), "from confident voxels alone"


def test_the_student_sees_the_strong_view_and_the_teacher_the_weak_one(registered, monkeypatch):
    trainer = started(registered.trainer(Quiet))
    batch = next(trainer.dataloader_train)
    n_labeled = len(batch["target"])
    seen = []
    trainer.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    trainer.train_step(batch)
    assert seen[0][n_labeled:].equal(batch["strong"])
    assert seen[0][:n_labeled].equal(batch["data"][:n_labeled])


def test_without_unlabelled_cases_there_is_nothing_to_learn_from_the_teacher(registered):
    train, val, unlabeled = registered._default_split(dict.fromkeys(registered.dataset_json["cmc"]["present_channels"]))
    registered.split([*train, *unlabeled], val, [])
    trainer = started(registered.trainer(Quiet))
    assert trainer.train_step(next(trainer.dataloader_train))["pseudo"] == 0
