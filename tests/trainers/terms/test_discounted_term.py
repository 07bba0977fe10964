"""EFCD: the loss of combined evidence, and trainings with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from short_trainers import short

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.networks.evidence import EvidentialHead
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.terms import Discounted, Setting

PATCH = (4, 5, 6)
PRESENT = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]], dtype=torch.bool)  # of three labelled rows, and another


def output_and_batch(present: torch.Tensor = PRESENT, labeled: int = 3) -> tuple[CMCOutput, Batch]:
    torch.manual_seed(0)
    combined = torch.randn(len(present), 3, *PATCH, requires_grad=True)
    target = torch.randint(0, 3, (labeled, 1, *PATCH))
    nothing = torch.zeros(len(present), 2, 3, *PATCH)
    output = CMCOutput(nothing, nothing, present, auxiliary={"combined": (combined,)})
    fusion = torch.eye(2, dtype=torch.bool) & present[:, None]
    return output, Batch(nothing[:, :, 0], target, fusion, torch.zeros(0, 2), nothing)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_it_is_one_minus_the_dice_of_labelled_rows_with_several_modalities(batch_dice):
    output, batch = output_and_batch()
    term = Discounted(Setting(2, 3, 4, batch_dice))(output, batch)
    p = output.auxiliary["combined"][0].softmax(1).detach().double().numpy()
    sums = {"both": np.zeros((2, 2)), "either": np.zeros((2, 2))}  # by row and foreground class
    for i, row in enumerate((0, 2)):
        for k in (1, 2):
            truth = batch.target[row, 0].numpy() == k
            sums["both"][i, k - 1] = p[row, k][truth].sum()
            sums["either"][i, k - 1] = p[row, k].sum() + truth.sum()
    if batch_dice:
        sums = {name: of_rows.sum(0) for name, of_rows in sums.items()}
    dice = (2 * sums["both"] + 1e-5) / (sums["either"] + 1e-5)
    assert float(term.detach()) == pytest.approx(1 - dice.mean(), rel=1e-5)
    (gradient,) = torch.autograd.grad(term, output.auxiliary["combined"][0])
    assert gradient.flatten(1).any(1).tolist() == [True, False, True, False]


def test_where_every_labelled_row_has_one_modality_it_is_zero():
    output, batch = output_and_batch(torch.eye(2, dtype=torch.bool), labeled=2)
    term = Discounted(Setting(2, 3, 4, True))(output, batch)
    term.backward()
    assert term == 0
    assert not output.auxiliary["combined"][0].grad.any()


# ---- trainings


def started(trainer):
    """As nnU-Net's run_training up to its first iteration."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


def test_unpaired_scans_are_refused_before_anything_is_trained(unpaired):
    trainer = unpaired.trainer(short("EFCDTrainer"))
    trainer.update = lambda batch: pytest.fail("it trains")
    with pytest.raises(ValueError) as caught:
        trainer.run_training()
    assert str(caught.value) == (
        "Short needs labelled cases with several modalities on one grid, and fold 0 has none: the evidence of "
        "modalities is combined voxel by voxel; train with -tr CMCTrainer."
    )
    assert not list(unpaired.results.rglob("*.pth"))


def test_registered_cases_without_a_label_do_not_help(unpaired):
    unpaired.add_unlabeled("both", [0, 1])
    with pytest.raises(ValueError, match="needs labelled cases with several modalities on one grid, and fold 0"):
        unpaired.trainer(short("EFCDTrainer")).run_training()


def test_one_labelled_registered_case_among_others_is_enough(mixed):
    trainer = mixed.trainer(short("EFCDTrainer", epochs=1, iterations=4))
    trainer.run_training()
    assert 0 < trainer.logger.get_checkpoint()["discounted"][0] < 1


def test_evidence_and_reliability_learn_and_no_unlabelled_case_is_read(three):
    trainer = started(three.trainer(short("EFCDTrainer")))
    batch = next(trainer.dataloader_train)
    assert len(batch["data"]) == len(batch["target"])
    rows = Batch(**batch)
    terms = trainer.loss_terms(trainer.network(rows.data, rows.fusion), rows)
    assert set(terms) == {"supervised", "discounted"}
    terms["discounted"].backward()
    network = trainer.network
    assert network.combination.reliability.grad.all()
    heads = [module for module in network.modules() if isinstance(module, EvidentialHead)]
    assert len(heads) == 3
    assert all(parameter.grad.any() for head in heads for parameter in head.parameters())
    assert all(any(p.grad is not None and p.grad.any() for p in encoder.parameters()) for encoder in network.encoders)
    before = network.combination.reliability.detach().clone()
    numbers = trainer.train_step(batch)
    assert np.isfinite([numbers["supervised"], numbers["discounted"]]).all()
    assert (network.combination.reliability != before).all()


def test_it_trains_in_half_precision(registered):
    trainer = started(registered.trainer(short("EFCDTrainer", half_precision=torch.bfloat16)))
    rows = Batch(**next(trainer.dataloader_train))
    with trainer._precision():
        output = trainer.network(rows.data, rows.fusion)
        terms = trainer.loss_terms(output, rows)
    assert output.logits.dtype == output.auxiliary["combined"][0].dtype == torch.float32
    assert output.deep[0].dtype == torch.bfloat16
    assert all(term.isfinite() for term in terms.values())


def test_how_predictions_are_combined_is_in_the_table_of_the_recipe():
    assert RECIPES["EFCDTrainer"].rows()["combination"] == "Dempster's rule"
    assert RECIPES["SupTrainer"].rows()["combination"] == "weighted by validation Dice"
    assert replace(RECIPES["SupTrainer"], calibrated=False).rows()["combination"] == "equal weights"
