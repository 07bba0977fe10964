from dataclasses import replace

import numpy as np
import pytest
import torch
from short_trainers import short

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.terms import CPS, PeerSupervised, Setting, Supervised

RECIPE = RECIPES["CPSTrainer"]
SIZE, K = 8, 3
SETTING = Setting(2, K, 8, False)


def outputs(n: int = 4) -> CMCOutput:
    """Of two modalities at three resolutions, of which the coarsest does not count; row 1 lacks the second modality."""
    torch.manual_seed(0)
    first, second = (
        [torch.randn(n, 2, K, *[side] * 3, requires_grad=True) for side in (SIZE, SIZE // 2, SIZE // 4)]
        for _ in range(2)
    )
    present = torch.ones(n, 2, dtype=torch.bool)
    present[1, 1] = False
    return CMCOutput(first[0], torch.zeros(n), present, tuple(first[1:]), {"peer": tuple(second)})


def batch_of(output: CMCOutput, n_labeled: int) -> Batch:
    n = len(output.logits)
    data, nothing = torch.zeros(n, 2, SIZE, SIZE, SIZE), torch.zeros(0)
    target = torch.randint(0, K, (n_labeled, 1, SIZE, SIZE, SIZE)).short()
    return Batch(data, target, output.present[:, :, None] & output.present[:, None], nothing, nothing)


def dice_and_ce(logits: np.ndarray, label: np.ndarray) -> float:
    """Of one row ``(K, D, H, W)``: nnU-Net's, of the foreground classes."""
    p = np.exp(logits) / np.exp(logits).sum(0)
    truth = np.stack([label == k for k in range(K)])
    dice = np.mean([2 * (p[k] * truth[k]).sum() / (p[k].sum() + truth[k].sum()) for k in range(1, K)])
    return -np.log((p * truth).sum(0)).mean() - dice


def by_hand(output: CMCOutput, rows: range) -> float:
    """Mean over modalities of the mean over rows, both networks' losses, halved at half the resolution."""
    networks = [(output.logits, *output.deep), output.auxiliary["peer"]]
    networks = [[scale.detach().numpy().astype(float) for scale in network] for network in networks]
    total = 0.0
    for student, teacher in (networks, networks[::-1]):
        for weight, scale in ((2 / 3, 0), (1 / 3, 1)):
            of_modality = []
            for m in range(2):
                labels = {i: teacher[0][i, m].argmax(0) for i in rows if output.present[i, m]}
                labels = {i: label[1::2, 1::2, 1::2] if scale else label for i, label in labels.items()}
                of_modality.append(np.mean([dice_and_ce(student[scale][i, m], label) for i, label in labels.items()]))
            total += weight * np.mean(of_modality)
    return total


@pytest.mark.parametrize("n_labeled", [2, 4])
def test_each_network_learns_what_the_other_predicts(n_labeled):
    """On labelled and on unlabelled rows, of which there may be none."""
    output = outputs()
    expected = sum(by_hand(output, rows) for rows in (range(n_labeled), range(n_labeled, 4)) if len(rows))
    assert CPS(SETTING)(output, batch_of(output, n_labeled)).item() == pytest.approx(expected, rel=1e-4)


def test_both_networks_get_gradients_at_every_resolution_but_the_coarsest():
    output = outputs()
    networks = [[output.logits, *output.deep], [*output.auxiliary["peer"]]]
    loss = CPS(SETTING)(output, batch_of(output, 2))
    for fine, half, coarse in networks:
        gradients = torch.autograd.grad(loss, [fine, half, coarse], retain_graph=True, allow_unused=True)
        for gradient in gradients[:2]:
            assert (gradient.flatten(2).abs().sum(2) > 0).equal(output.present), "of what is there"
        assert gradients[2] is None


def test_the_peer_learns_the_labels_as_the_first_does():
    output = outputs()
    batch = batch_of(output, 2)
    peer, *deep = output.auxiliary["peer"]
    expected = Supervised(SETTING)(output._replace(logits=peer, deep=tuple(deep)), batch)
    loss = PeerSupervised(SETTING)(output, batch)
    assert loss == expected
    assert loss != Supervised(SETTING)(output, batch)
    assert torch.autograd.grad(loss, [peer, output.logits], allow_unused=True)[1] is None


def weights(trainer) -> dict:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def test_the_peer_trains_and_is_in_checkpoints(registered):
    whole = registered.trainer(short(RECIPE))
    whole.initialize()
    start = weights(whole)
    whole.run_training()
    trained = [
        name for name, parameter in whole.network.auxiliary["peer"].named_parameters() if parameter.grad is not None
    ]
    assert len(trained) > 10
    assert all(not start[f"auxiliary.peer.{name}"].equal(weights(whole)[f"auxiliary.peer.{name}"]) for name in trained)
    log = whole.logger.get_checkpoint()
    assert all(np.isfinite(log[name]).all() and all(log[name]) for name in ("peer", "cps"))
    assert log["lambda"] == pytest.approx([0.1 * np.exp(-5), 0.1 * np.exp(-1.25)])


def test_without_unlabelled_cases_the_networks_teach_each_other_on_labelled_ones(registered):
    train, val, unlabeled = registered._default_split(dict.fromkeys(registered.dataset_json["cmc"]["present_channels"]))
    registered.split([*train, *unlabeled], val, [])
    trainer = registered.trainer(short(RECIPE, epochs=1))
    trainer.run_training()
    assert trainer.logger.get_checkpoint()["cps"][0] > 0


@pytest.mark.parametrize("dropped", RECIPE.terms[1:], ids=lambda term: term.name)
def test_a_peer_that_learns_or_teaches_nothing_is_refused(dropped):
    terms = tuple(term for term in RECIPE.terms if term != dropped)
    with pytest.raises(ValueError, match=rf"needs {dropped.loss.__name__}, since"):
        replace(RECIPE, terms=terms)
