"""Trainers of recipes that take a second, for tests."""

from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_cmc.data.loading.views import StrongView
from nnunet_cmc.losses.schedules import GAMMA
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.recipe import Length, Recipe
from nnunet_cmc.trainers.recipes import PAPER, RECIPES
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import Pseudo, Term

# every term and a teacher
TAUGHT = replace(PAPER, terms=(*PAPER.terms, Term(Pseudo, GAMMA)), views=(StrongView(),), teacher=Teacher())


def short(recipe: str | Recipe, epochs: int = 2, iterations: int = 2, validation: int = 1, **attributes) -> type:
    """The trainer ``Short`` of a recipe or its name: seeded, so many epochs of so many iterations, and no pictures."""
    recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
    recipe = replace(recipe, length=Length(epochs, iterations, validation))
    return type("Short", (WithoutPictures,), {"recipe": recipe, "seed": 0, **attributes})


class WithoutPictures(CMCTrainer):
    """Pictures take longer than such a training."""

    def initialize(self):
        super().initialize()
        self.logger.local_logger.plot_progress_png = lambda folder: None


def resumed(cubes, cls: type, stopped_after: int = 1) -> CMCTrainer:
    """Train anew, stop after so many epochs, and go on from the checkpoint to the end."""
    cubes.results = cubes.results.with_name("again")
    first = cubes.trainer(cls)
    first.save_every = 1
    end = first.on_epoch_end

    def stop():
        end()
        if first.current_epoch == stopped_after:
            raise KeyboardInterrupt

    first.on_epoch_end = stop
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    second = cubes.trainer(cls)
    second.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    assert second.current_epoch == stopped_after
    second.run_training()
    return second
