"""UMML: semantic consistency between scans and their restyled copies, and class-balanced pseudo-labels."""

from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from short_trainers import short

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.style import SwapStyles
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.batch_statistics import pseudo_foreground, shown
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.terms import ClassBalanced, SemanticConsistency, Setting
from nnunet_cmc.trainers.terms.class_balanced_term import confident_labels
from nnunet_cmc.trainers.terms.dice_and_ce import DiceAndCE

K, SHAPE = 3, (4, 4, 4)
SETTING = Setting(num_modalities=2, num_classes=K, num_channels=1, batch_dice=True)


def batch_of(present, labeled: int) -> Batch:
    """Restyled rows of these modalities and all."""
    present = torch.tensor(present, dtype=torch.bool)
    rows, modalities = present.shape
    batch = Batch(
        torch.randn(rows, modalities, *SHAPE) * present[..., None, None, None],
        torch.randint(0, K, (labeled, 1, *SHAPE)),
        torch.diag_embed(present), torch.where(present, torch.arange(rows)[:, None], -1), torch.rand(rows, 3, 1, 1, 1),
    )  # fmt: skip
    return SwapStyles()(batch)


def output_of(batch: Batch) -> CMCOutput:
    present = (batch.data != 0).flatten(2).any(2)
    logits = 3 * torch.randn(*present.shape, K, *SHAPE) * present[..., None, None, None, None]
    return CMCOutput(logits.requires_grad_(), torch.zeros(*present.shape, 1, 1, 1, 1), present)


UNPAIRED = [[1, 0], [0, 1], [0, 1], [1, 0], [1, 0]]
REGISTERED = [[1, 1, 1], [1, 1, 0], [1, 0, 1]]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.mark.parametrize("present", [UNPAIRED, REGISTERED])
def test_a_scan_and_its_copy_mean_the_same(present):
    batch = batch_of(present, 2)
    output = output_of(batch)
    probabilities = output.logits.detach().double().softmax(2).numpy()
    divergences = []
    for scan, copy in batch.swaps.tolist():
        (row, own), (new, other) = ((max(part), part.index(max(part))) for part in (scan, copy))
        p, q = probabilities[row, own], probabilities[new, other]
        divergences += [sum(p[(k, *v)] * np.log(p[(k, *v)] / q[(k, *v)]) for k in range(K)) for v in np.ndindex(SHAPE)]
    loss = SemanticConsistency(SETTING)(output, batch)
    assert float(loss.detach()) == pytest.approx(np.mean(divergences), rel=1e-4)
    loss.backward()
    taught = output.logits.grad.flatten(2).any(2)
    assert taught.equal(output.present), "all scans, with a label or without, and all copies"


def test_what_is_not_predicted_does_not_count():
    batch = batch_of(UNPAIRED, 2)
    output = output_of(batch)
    last = batch.swaps[-1, 1].amax()
    present = output.present.clone()
    present[last] = False
    fewer = replace(batch, swaps=batch.swaps[:-1])
    term = SemanticConsistency(SETTING)
    assert term(output._replace(present=present), batch).equal(term(output, fewer))


def test_a_batch_of_one_modality_is_an_exact_zero():
    batch = batch_of([[1, 0], [1, 0]], 2)
    output = output_of(batch)
    for term in (SemanticConsistency(SETTING), ClassBalanced(SETTING)):
        loss = term(output, batch)
        assert loss == 0
        loss.backward()
    assert not output.logits.grad.any()


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 1.0])
def test_the_most_confident_voxels_of_each_class_are_labels(share):
    logits = torch.randn(2, K, 5, 4, 3)
    labels = confident_labels(logits, share).numpy()
    probabilities = logits.double().softmax(1).numpy()
    expected = np.full(labels.shape, K)
    for k in range(K):
        voxels = [v for v in np.ndindex(labels.shape) if probabilities[v[0], :, v[1], v[2], v[3]].argmax() == k]
        voxels.sort(key=lambda v: -probabilities[v[0], k, v[1], v[2], v[3]])
        for v in voxels[: ceil(share * len(voxels))]:
            expected[v] = k
    assert (labels == expected).all()
    assert labels.dtype == np.int16
    nothing_of_2 = confident_labels(logits - 100 * torch.tensor([0, 0, 1]).view(1, K, 1, 1, 1), share)
    assert set(nothing_of_2.unique().tolist()) <= {0, 1, K}


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_each_modality_teaches_itself_on_unlabelled_scans_alone(progress):
    batch = batch_of(UNPAIRED, 2)
    output = output_of(batch)
    term = ClassBalanced(SETTING)
    term.progress = progress
    hidden = {m: [row for row, has in enumerate(batch.scans[:, m]) if has and row >= batch.n_labeled] for m in (0, 1)}
    assert [len(rows) for rows in hidden.values()] == [2, 1]
    losses = []
    for m, rows in hidden.items():
        logits = output.logits[rows, m].detach()
        labels = confident_labels(logits, 0.2 + 0.3 * progress)[:, None]
        losses.append(DiceAndCE(True, ignore_label=K)(logits, labels))
    loss = term(output, batch)
    assert float(loss.detach()) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
    loss.backward()
    taught = [(row, m) for row, m in output.logits.grad.flatten(2).any(2).nonzero().tolist()]
    assert taught == sorted((row, m) for m, rows in hidden.items() for row in rows)


def test_rows_shown_and_their_labels_are_those_of_scans():
    batch = batch_of(UNPAIRED, 2)
    counts = {name: int(count) for name, count in shown(batch, ("CT", "MR")).items()}
    assert counts == {
        "shown/CT fused": 0, "shown/CT alone": 1, "shown/CT unlabelled": 2, "shown/CT restyled": 2,
        "shown/MR fused": 0, "shown/MR alone": 1, "shown/MR unlabelled": 1, "shown/MR restyled": 3,
    }  # fmt: skip
    labels = torch.zeros(6, 1, *SHAPE, dtype=torch.int16)
    labels[0] = 1  # a scan of MR, followed by two of CT and the copies of all three
    foreground = pseudo_foreground(replace(batch, pseudo_targets=labels), ("CT", "MR"), K)
    assert list(map(float, foreground.values())) == [0, 1]


UMML = RECIPES["UMMLTrainer"]


def test_every_network_learns_from_every_term(cubes):
    trainer = cubes.trainer(short(UMML, epochs=1))
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    parts = [f"{part} {name}" for part in ("encoder", "decoder") for name in ("CT", "MR")]
    for term in ("supervised", "semantic", "class_balanced"):
        assert log[term][0] != 0
        assert all(log[f"gradient/{term}/{part}"][0] > 0 for part in parts)
    assert "restyled" in Path(trainer.log_file).read_text()
    trainer.network.eval()
    for shows in ([1, 0], [0, 1], [1, 1]):
        x = torch.randn(1, 2, 16, 16, 16) * torch.tensor(shows).view(1, 2, 1, 1, 1)
        with torch.no_grad():
            assert trainer.network(x).softmax(1)[:, 1].std() > 0


def test_the_share_of_labels_follows_the_epoch(unpaired):
    trainer = unpaired.trainer(short(UMML, epochs=4))
    trainer.initialize()
    trainer.current_epoch = 3
    batch = batch_of(UNPAIRED, 2)
    output, batch = output_of(batch), replace(batch, target=batch.target.clamp(max=1))
    values = trainer.loss_terms(output._replace(logits=output.logits[:, :, :2]), batch)
    assert values.keys() == {"supervised", "semantic", "class_balanced"}
    assert [term.progress for term in trainer.terms.values()] == [0.75] * 3
