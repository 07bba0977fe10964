"""Strong views in a random contrast, as a trainer's loader makes them."""

from dataclasses import replace

import blosc2
import numpy as np
import pytest
import torch
from short_trainers import TAUGHT, short

from nnunet_cmc.data.format.preprocessed import ALMOST_ZERO
from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.views import RandomizeContrast, StrongView
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.teacher import MeanTeacher


def contrasted(**arguments):
    return replace(TAUGHT, views=(*TAUGHT.views, RandomizeContrast(**arguments)))


def batches_of(trainer, count: int):
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    return [Batch(**next(loader)).recontrasted() for _ in range(count)]


def bare_batch(strong):
    """Of unlabelled rows alone; the views of it do not look at the rest."""
    rows, channels = strong.shape[:2]
    nothing = torch.zeros(0)
    fusion = torch.eye(channels, dtype=torch.bool).expand(rows, -1, -1)
    return Batch(strong, nothing, fusion, nothing, nothing, strong=strong)


def test_strong_views_alone_change_and_keep_norm_and_absence(cubes):
    """What nnU-Net's transforms did before is the same with and without, from the same seed."""
    plain, other = (cubes.trainer(short(recipe)) for recipe in (TAUGHT, contrasted()))
    agreement = []
    for before, after in zip(batches_of(plain, 4), batches_of(other, 4), strict=True):
        for name, value in vars(before).items():
            if isinstance(value, torch.Tensor) and name != "strong":
                torch.testing.assert_close(getattr(after, name), value, rtol=0, atol=0, equal_nan=True)
        assert not after.strong[before.strong == 0].any()
        norms = [batch.strong.flatten(2).norm(dim=2) for batch in (before, after)]
        torch.testing.assert_close(*norms, rtol=1e-4, atol=0)
        for x, y in zip(before.strong.flatten(0, 1), after.strong.flatten(0, 1), strict=True):
            if x.any():
                agreement.append(np.corrcoef(x.flatten(), y.flatten())[0, 1])
    assert np.median(np.abs(agreement)) < 0.98
    assert len(set(np.round(agreement, 6))) == len(agreement)


def test_background_is_shown_as_it_is_in_the_weak_view(unpaired):
    """As the preprocessor writes it; nnU-Net's noise had filled it."""
    for file in {*unpaired.images.glob("*.b2nd")} - {*unpaired.images.glob("*_seg.b2nd")}:
        image = blosc2.open(str(file), mode="a")
        data = image[:]
        data[..., :11][data[..., :11] != 0] = ALMOST_ZERO
        image[:] = data
    seen = 0
    for batch in batches_of(unpaired.trainer(short(contrasted())), 4):
        weak = batch.data[batch.n_labeled :]
        background = weak.abs() < 1.01 * ALMOST_ZERO
        assert batch.strong[background].equal(weak[background])
        assert (batch.strong[~background] != weak[~background]).float().mean() > 0.99
        seen += int((background & (weak != 0)).sum())
    assert seen > 1000


def test_a_share_of_the_views_is_changed():
    strong = torch.randn(200, 1, 4, 4, 4)
    np.random.seed(0)
    torch.manual_seed(0)
    for share in (0.0, 0.25, 1.0):
        batch = bare_batch(strong)
        changed = (RandomizeContrast(share)(batch).recontrasted().strong != strong).flatten(1).any(1)
        assert changed.float().mean() == pytest.approx(share, abs=0.1)
        assert batch.strong.equal(strong)


def test_plans_that_clip_ct_keep_its_strong_views_in_the_same_range(unpaired, monkeypatch):
    trainer = unpaired.trainer(short(contrasted()))
    trainer.initialize()
    configuration = trainer.configuration_manager
    schemes = ["CTNormalization", "ZScoreNormalization"]
    monkeypatch.setitem(configuration.configuration, "normalization_schemes", schemes)
    monkeypatch.setitem(
        trainer.plans_manager.plans,
        "foreground_intensity_properties_per_channel",
        {str(i): {"mean": 10.0, "std": 20.0, "percentile_00_5": 0.0, "percentile_99_5": 20.0} for i in range(2)},
    )
    loader, _ = trainer.get_dataloaders()
    strong = torch.cat([Batch(**next(loader)).recontrasted().strong for _ in range(4)])
    assert strong[:, 0].abs().max() == 0.5
    assert strong[:, 1].abs().max() > 0.5


def test_without_strong_views_it_is_refused():
    batch = replace(bare_batch(torch.randn(1, 1, 2, 2, 2)), strong=None)
    with pytest.raises(ValueError, match="put StrongView before it"):
        RandomizeContrast()(batch)


def test_ranges_of_another_number_of_modalities_are_refused():
    with pytest.raises(ValueError, match="has 1 ranges to clip to, and the batch 2 modalities"):
        RandomizeContrast(clip=((0, 1),))(bare_batch(torch.randn(1, 2, 2, 2, 2)))


def test_a_step_shows_the_student_what_the_loader_drew(registered, monkeypatch):
    """In a training, with workers or without: the trainer itself computes the contrasts."""
    trainer = registered.trainer(short(contrasted(), iterations=1, epochs=1))
    seen = []
    teach = MeanTeacher.teach
    monkeypatch.setattr(
        MeanTeacher, "teach", lambda self, batch, *rest: seen.append(batch) or teach(self, batch, *rest)
    )
    trainer.run_training()
    (again,) = batches_of(registered.trainer(short(contrasted(), iterations=1, epochs=1)), 1)
    assert seen[0].strong.equal(again.strong)
    assert seen[0].contrasts is None


def dice_in_another_contrast(cubes, views, seed: int) -> float:
    recipe = replace(RECIPES["CMCTrainer_teacherOnly"], views=views)
    trainer = cubes.trainer(short(recipe, epochs=5, iterations=14, seed=seed))
    trainer.run_training()
    network = trainer.network.eval()
    rng = np.random.default_rng(0)
    hits = predicted = true = 0
    for _ in range(8):
        truth = np.zeros((16, 16, 16), bool)
        d, h, w = rng.integers(1, 7, 3)
        truth[d : d + 8, h : h + 8, w : w + 8] = True
        scan = torch.zeros(1, 2, 16, 16, 16)
        scan[0, 0] = torch.from_numpy(-1.0 * truth + rng.normal(0, 0.3, truth.shape))  # dark, where all CT was bright
        with torch.no_grad():
            found = network(scan)[0].argmax(0).numpy() == 1
        hits, predicted, true = hits + (found & truth).sum(), predicted + found.sum(), true + truth.sum()
    return 2 * hits / (predicted + true)


def test_the_teacher_with_random_contrasts_teaches_shapes(registered):
    plain, random = (
        dice_in_another_contrast(registered, views, 0)
        for views in ((StrongView(),), (StrongView(), RandomizeContrast()))
    )
    assert random > plain + 0.2
