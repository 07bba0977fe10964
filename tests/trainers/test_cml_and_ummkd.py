"""CMLTrainer and UMMKDTrainer: what they learn when, and that an interruption changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from short_trainers import short

from nnunet_cmc.data.loading.views import FusePairs
from nnunet_cmc.losses.schedules import KAPPA
from nnunet_cmc.networks.changes import OwnDecoderNorms, ShowOnly
from nnunet_cmc.trainers.base_recipes import APART, SHARED, SUPERVISED
from nnunet_cmc.trainers.terms import AreaSimilarity, Distillation, Relearning, Term

EPOCHS = 4  # the fourth is the first at which relearning weighs anything


def test_cml_relearns_in_the_second_half_on_registered_scans(cubes):
    trainer, dice = cubes.trainer(short("CMLTrainer", EPOCHS)), []
    start = trainer.on_train_epoch_start
    trainer.on_train_epoch_start = lambda: (dice.append(trainer.terms["relearning"].dice.clone()), start())
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    assert log["omega"] == [0, 0, 0, 1]
    assert log["delta"] == [0.1] * EPOCHS
    assert all(log["area_similarity"])
    registered = cubes.dataset_json["cmc"]["present_channels"].keys() == {f"case{i}" for i in range(6)}
    assert bool(log["relearning"][-1]) == registered
    assert log["relearning"][0] == 0, "before the first validation nobody is the better one"
    assert not dice[0].any()
    assert dice[-1].any()
    gradients = {key: value for key, value in trainer.gradients.items() if key.startswith("gradient/relearning/")}
    weaker = ("CT", "MR")[int(dice[-1].argmin())]
    learned = {key.rpartition(" ")[2] for key, value in gradients.items() if value > 0}
    assert learned == ({weaker} if registered else set()), "the better modality learns nothing from the other"


def test_ummkd_learns_from_labels_alone(cubes):
    trainer = cubes.trainer(short("UMMKDTrainer"))
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    assert log["kappa"] == [KAPPA.at(0, 2)] * 2 == [0.5] * 2
    assert all(value > 0 for value in log["distillation"])
    assert all(trainer.gradients[f"gradient/distillation/decoder {name}"] > 0 for name in ("CT", "MR"))
    assert "unlabelled cases are not read" in Path(trainer.log_file).read_text()
    parts = trainer.network.decoders
    assert not torch.equal(*(torch.cat([p.flatten() for p in part.parameters()]) for part in parts)), "own norms moved"


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: replace(SHARED, terms=(SUPERVISED, Term(Distillation))), "Distillation needs PredictAlone, since"),
        (lambda: replace(SHARED, terms=(SUPERVISED, Term(AreaSimilarity))), "AreaSimilarity needs PredictAlone, since"),
        (lambda: replace(SHARED, network=(OwnDecoderNorms(),)), "OwnDecoderNorms needs PredictAlone, since"),
        (lambda: replace(APART, network=(*APART.network, OwnDecoderNorms())), "decoders of their own already"),
        (
            lambda: replace(SHARED, terms=(SUPERVISED, Term(Relearning)), views=(FusePairs(),)),
            "voxels of two patients do not correspond",
        ),
        *(
            (
                lambda term=term: replace(APART, terms=(SUPERVISED, Term(term)), network=(*APART.network, ShowOnly(0))),
                f"{term.__name__} and ShowOnly cannot be combined, since with one modality shown",
            )
            for term in (AreaSimilarity, Relearning, Distillation)
        ),
    ],
)
def test_what_cannot_stand_together_is_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
