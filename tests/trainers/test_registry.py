"""Trainers are made from names: of a recipe, and how long to train."""

import pickle

import pytest

from nnunet_cmc.trainers import registry
from nnunet_cmc.trainers.budget import Budget, nnUNetTrainer_cmcbudget
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.registry import SHORT, trainer_class


def test_every_recipe_is_a_trainer_of_its_name():
    for name, recipe in RECIPES.items():
        cls = trainer_class(name)
        assert (cls.__name__, cls.recipe) == (name, recipe)
        assert issubclass(cls, CMCTrainer)
        assert trainer_class(name) is cls
    assert trainer_class("CMCTrainer") is CMCTrainer


def test_a_trainer_is_imported_and_unpickled_by_its_name():
    from nnunet_cmc.trainers.registry import CMCTrainerPaper_5epochs

    assert pickle.loads(pickle.dumps(CMCTrainerPaper_5epochs)) is trainer_class("CMCTrainerPaper_5epochs")
    assert not hasattr(registry, "CMCTrainerBetter")


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("CMCTrainer", (1000, 250, 50)),
        ("CMCTrainer_7epochs", (7, 250, 50)),
        ("CMCTrainerPaper_noCSC_250epochs", (250, 250, 50)),
        ("CMCTrainer_smoke", (3, 2, 1)),
        ("CMCTrainer_demo", (10, 40, 4)),
        ("CMCTrainer_smoke_5epochs", (5, 2, 1)),
        ("CMCTrainer_5epochs_smoke", (5, 2, 1)),
    ],
)
def test_suffixes_say_how_long(registered, name, length):
    trainer = registered.trainer(trainer_class(name))
    found = trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch
    assert found == length
    assert name in trainer.output_folder


def test_every_part_of_a_recipe_acts_in_a_smoke_training():
    """Every weight of a term is above 0 in some epoch, and every round of labels is made before the last."""
    last = SHORT["smoke"].epochs - 1
    for name, recipe in RECIPES.items():
        for term in recipe.terms:
            assert max(term.weight.at(epoch, last + 1) for epoch in range(last + 1)) > 0, (name, term)
        if labels := recipe.whole_scan_labels:
            assert labels.rounds_before(last, last + 1) == len(labels.at), name


@pytest.mark.parametrize("name", ["MeanTeacherTrainer_cmcbudget", "CMCTrainer_cmcbudget"])
def test_a_budget_comes_from_the_environment(registered, monkeypatch, name):
    monkeypatch.setenv("NNUNET_CMC_EPOCHS", "3")
    monkeypatch.setenv("NNUNET_CMC_ITERATIONS", "20")
    trainer = registered.trainer(trainer_class(name))
    assert isinstance(trainer, Budget)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (3, 20)
    assert trainer_class("nnUNetTrainer_cmcbudget") is nnUNetTrainer_cmcbudget


@pytest.mark.parametrize("name", ["CMCTrainerFoo", "CMCTrainer_", "CMCTrainer_0epochs", "CMCTrainer_5epoch", "_smoke",
                                  "CMCTrainer_nocsc", "nnUNetTrainer_smoke"])  # fmt: skip
def test_an_unknown_name_is_answered_with_those_there_are(name):
    with pytest.raises(ValueError, match=f"There is no trainer {name}: take one of CMCTrainer, .*_Nepochs"):
        trainer_class(name)


@pytest.mark.parametrize("name", ["CMCTrainer_5epochs_7epochs", "CMCTrainer_smoke_demo", "CMCTrainer_smoke_cmcbudget",
                                  "CMCTrainer_cmcbudget_20epochs", "CMCTrainer_cmcbudget_cmcbudget"])  # fmt: skip
def test_a_length_said_twice_is_refused(name):
    with pytest.raises(ValueError, match="sets its length twice"):
        trainer_class(name)
