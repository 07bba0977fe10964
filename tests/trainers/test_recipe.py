"""Recipes are made of parts: those that may stand together do, and the others are refused by name."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from nnunet_cmc.data.loading.style import SwapStyles
from nnunet_cmc.data.loading.views import FusePairs, RandomizeContrast, StrongView
from nnunet_cmc.losses.schedules import ALPHA, BETA, GAMMA, LAMBDA, SMALL_ALPHA
from nnunet_cmc.networks import MeanFusion, SkipFusion
from nnunet_cmc.networks.changes import (
    DecodeAlone,
    Evidential,
    FuseByMean,
    FuseSkips,
    MMFormer,
    OwnDecoderNorms,
    PredictAlone,
    SeparateModalities,
    ShareEncoder,
    ShowOnly,
    SuperviseDeep,
    TrainAdapters,
    WithPeer,
)
from nnunet_cmc.networks.combination import ByReliability, Discounting
from nnunet_cmc.networks.mmformer import MMFormerFusion
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.optimizers import ByLength, ConstantAdam
from nnunet_cmc.trainers.recipe import CONFLICTS, Length, Recipe
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import (
    CAC,
    CPS,
    CSC,
    AuxiliarySupervised,
    Discounted,
    PeerSupervised,
    Pseudo,
    SemanticConsistency,
    Supervised,
    Term,
)
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels

PLAIN = Recipe("supervised alone", (Term(Supervised),))
TAUGHT = {"teacher": Teacher(), "views": (StrongView(),)}


def taught(recipe: Recipe, *views) -> Recipe:
    """With a teacher, and these views more."""
    terms = (*recipe.terms, Term(Pseudo, GAMMA))
    return replace(recipe, terms=terms, teacher=Teacher(), views=(*recipe.views, StrongView(), *views))


def separate(recipe: Recipe) -> Recipe:
    """With separate networks, which some changes need."""
    if SeparateModalities() in recipe.network:
        return recipe
    return replace(recipe, network=(SeparateModalities(), *recipe.network))


def alone(recipe: Recipe) -> Recipe:
    """With predictions of single modalities, which some changes need."""
    return replace(recipe, network=tuple(dict.fromkeys((*recipe.network, PredictAlone()))))


def changed(recipe: Recipe, change) -> Recipe:
    """With a change of decoders, before their copies with own norms."""
    copies = (OwnDecoderNorms(),) if OwnDecoderNorms() in recipe.network else ()
    return replace(recipe, network=(*(each for each in recipe.network if each not in copies), change, *copies))


def with_peer(recipe: Recipe) -> Recipe:
    """With a second network, and what it learns and teaches."""
    terms = (*recipe.terms, Term(PeerSupervised), Term(CPS, LAMBDA))
    return replace(recipe, terms=terms, network=(*recipe.network, WithPeer()))


# every kind of part, and how a recipe is given it
PARTS = {
    CSC: lambda r: replace(r, terms=(*r.terms, Term(CSC, ALPHA))),
    CAC: lambda r: replace(r, terms=(*r.terms, Term(CAC, BETA))),
    CPS: with_peer,
    Pseudo: taught,
    RandomizeContrast: lambda r: taught(r, RandomizeContrast()),
    WholeScanLabels: lambda r: replace(r, terms=(*r.terms, Term(Pseudo)), whole_scan_labels=WholeScanLabels()),
    FusePairs: lambda r: replace(r, views=(FusePairs(), *r.views)),
    SwapStyles: lambda r: replace(r, views=(*r.views, SwapStyles())),
    SuperviseDeep: lambda r: changed(r, SuperviseDeep()),
    SeparateModalities: separate,
    FuseSkips: lambda r: replace(separate(r), network=(*separate(r).network, FuseSkips())),
    PredictAlone: alone,
    OwnDecoderNorms: lambda r: replace(alone(r), network=(*alone(r).network, OwnDecoderNorms())),
    Evidential: lambda r: changed(alone(r), Evidential(2)),
    FuseByMean: lambda r: replace(r, network=(*r.network, FuseByMean())),
    ShareEncoder: lambda r: replace(separate(r), network=(*separate(r).network, ShareEncoder())),
    MMFormer: lambda r: replace(r, network=(MMFormer(), *r.network)),
    AuxiliarySupervised: lambda r: replace(
        r, terms=(*r.terms, Term(AuxiliarySupervised)), network=(*r.network, DecodeAlone())
    ),
    ShowOnly: lambda r: replace(r, network=(*r.network, ShowOnly(0))),
    ConstantAdam: lambda r: replace(r, optimizer=ConstantAdam()),
}
# what comes with a part that needs it
IMPLIED = {
    FuseSkips: SeparateModalities,
    ShareEncoder: SeparateModalities,
    OwnDecoderNorms: PredictAlone,
    Evidential: PredictAlone,
}
REFUSED = {
    *map(frozenset, CONFLICTS),
    *(frozenset((ShowOnly, term)) for term in (CSC, CAC)),
    *(frozenset((OwnDecoderNorms, other)) for other in (FuseSkips, FuseByMean, FusePairs, ShareEncoder)),
    frozenset((Pseudo, RandomizeContrast)),  # both bring the same teacher
    *map(frozenset, combinations((WholeScanLabels, Pseudo, RandomizeContrast), 2)),
    # these need SeparateModalities or PredictAlone
    *(frozenset((MMFormer, part)) for part in (FuseSkips, ShareEncoder, OwnDecoderNorms, Evidential)),
    *(frozenset((Pseudo, view)) for view in (FusePairs, SwapStyles)),  # it brings a strong view
    *(frozenset((Evidential, part)) for part in (FuseSkips, FuseByMean, FusePairs)),  # as PredictAlone
}


def trainer_of(cubes, recipe: Recipe) -> CMCTrainer:
    trainer = cubes.trainer(type("Composed", (CMCTrainer,), {"recipe": recipe, "seed": 0}))
    trainer.initialize()
    return trainer


def found_in(trainer: CMCTrainer) -> set[type]:
    """Which parts the trainer that was built has, by looking at it and at a batch."""
    network = trainer.network
    loader, _ = trainer.get_dataloaders()
    batch = next(loader)
    is_taught = trainer.teacher is not None and "pseudo" in trainer.terms
    contrast = any(isinstance(view, RandomizeContrast) for view in loader.data_loader.views)
    output = network(batch["data"], batch["fusion"])
    return {
        kind
        for kind, there in {
            CSC: "csc" in trainer.terms,
            CAC: "cac" in trainer.terms,
            CPS: {"cps", "peer"} <= {*trainer.terms} and len(output.auxiliary["peer"]) == 1 + len(output.deep),
            Pseudo: is_taught and not contrast,
            RandomizeContrast: is_taught and contrast,
            WholeScanLabels: trainer.recipe.whole_scan_labels is not None and "pseudo" in trainer.terms,
            FusePairs: bool((batch["pairs"] >= 0).all() and (batch["pairs"] == batch["pairs"][:, :1]).all()),
            SwapStyles: "swaps" in batch and len(batch["swaps"]) > 0,
            SuperviseDeep: len(output.deep) > 0,
            FuseSkips: isinstance(network.skip_fusion, SkipFusion),
            PredictAlone: not network.fuses,
            OwnDecoderNorms: network.shared and len(network.decoders) > 1,
            Evidential: isinstance(network.combination, Discounting) and "combined" in output.auxiliary,
            FuseByMean: isinstance(network.mia, MeanFusion) and network.fuses,
            SeparateModalities: not network.shared and len(network.decoders) > 1,
            MMFormer: isinstance(network.mia, MMFormerFusion),
            AuxiliarySupervised: "auxiliary" in trainer.terms and "alone" in output.auxiliary,
            ShareEncoder: len({*network.encoders}) < len(network.encoders),
            ShowOnly: not output.present[:, 1].any(),
            ConstantAdam: isinstance(trainer.recipe.optimizer, ConstantAdam)
            and trainer.lr_scheduler.initial_lr == 1e-5,
        }.items()
        if there
    }


@pytest.mark.parametrize(
    "pair", [pair for pair in combinations(PARTS, 2) if frozenset(pair) not in REFUSED],
    ids=lambda pair: "-".join(kind.__name__ for kind in pair),
)  # fmt: skip
def test_both_of_a_pair_of_parts_are_in_the_trainer(unpaired, pair):
    recipes = [PARTS[b](PARTS[a](PLAIN)) for a, b in (pair, pair[::-1])]
    implied = {IMPLIED[part] for part in pair if part in IMPLIED}
    assert found_in(trainer_of(unpaired, recipes[0])) == {*pair} | implied
    networks = [trainer_of(unpaired, recipe).network for recipe in recipes]
    parts = [(network.state_dict().keys(), sum(p.numel() for p in network.parameters())) for network in networks]
    assert parts[0] == parts[1], "the order of these two does not matter, nor for which weights are shared"


@pytest.mark.parametrize("pair", [pair for pair in combinations(PARTS, 2) if frozenset(pair) in REFUSED],
                         ids=lambda pair: "-".join(kind.__name__ for kind in pair))  # fmt: skip
def test_a_pair_that_cannot_stand_together_is_refused_by_name(pair):
    for a, b in (pair, pair[::-1]):
        with pytest.raises(ValueError, match=r"cannot be combined, since|names .* twice"):
            PARTS[b](PARTS[a](PLAIN))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"terms": (Term(CSC, ALPHA),)}, "A recipe needs Supervised"),
        ({"terms": (Term(Supervised), Term(Pseudo, GAMMA))}, "Pseudo, .* and Teacher or WholeScanLabels, .* need"),
        ({"teacher": Teacher()}, "Teacher needs StrongView, since"),
        ({"views": (StrongView(),)}, "StrongView needs Teacher, since"),
        ({"views": (RandomizeContrast(),)}, "RandomizeContrast needs StrongView, since"),
        (TAUGHT, "Pseudo, .* need each other"),
        ({**TAUGHT, "terms": (Term(Supervised), Term(Pseudo, GAMMA)), "views": (RandomizeContrast(), StrongView())},
         "RandomizeContrast changes strong views: put StrongView before it"),
        ({"terms": (Term(Supervised), Term(CSC, ALPHA), Term(CSC, BETA))}, "names CSC twice"),
        ({"terms": (Term(Supervised), Term(CSC, ALPHA), Term(CAC, SMALL_ALPHA))}, "Two weights have the symbol alpha"),
        ({"terms": (Term(Supervised), Term(CAC, BETA, "printed"))}, "which FusePairs makes of all"),
        ({"network": (SuperviseDeep(), SuperviseDeep())}, "names SuperviseDeep twice"),
        ({"terms": (Term(Supervised), Term(SemanticConsistency))}, "SemanticConsistency needs SwapStyles, since it"),
        ({"network": (Evidential(),)}, "Evidential needs PredictAlone, since Dempster's rule"),
        ({"terms": (Term(Supervised), Term(Discounted))}, "Discounted needs Evidential, since it is the loss"),
        ({"network": (PredictAlone(), Evidential(), ShowOnly(0)), "terms": (Term(Supervised), Term(Discounted))},
         "Discounted and ShowOnly cannot be combined, since with one modality"),
        ({"network": (FuseSkips(),)}, "FuseSkips needs SeparateModalities, since a shared decoder"),
        ({"network": (SuperviseDeep(), SeparateModalities())}, "put it before all other changes"),
        ({"network": (SuperviseDeep(), MMFormer())}, "MMFormer builds the network anew: put it before all other"),
        ({"network": (PredictAlone(), OwnDecoderNorms(), SuperviseDeep())},
         "OwnDecoderNorms copies the decoder: put SuperviseDeep before it."),
        ({"network": (PredictAlone(), OwnDecoderNorms(), Evidential())},
         "OwnDecoderNorms copies the decoder: put Evidential before it."),
        ({"network": (DecodeAlone(),)}, "DecodeAlone needs AuxiliarySupervised, since nothing else trains"),
        ({"terms": (Term(Supervised), Term(AuxiliarySupervised))}, "AuxiliarySupervised needs DecodeAlone, since"),
        ({"network": (WithPeer(),)}, "WithPeer needs CPS, since"),
        ({"network": (ShareEncoder(),)}, "ShareEncoder needs SeparateModalities, since"),
        ({"network": (TrainAdapters(),), "optimizer": ConstantAdam()}, "TrainAdapters and ConstantAdam cannot be"),
    ],
)  # fmt: skip
def test_what_is_missing_or_there_twice_is_named(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(PLAIN, **changes)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items()
                                  if not recipe.needs_pretrained and recipe.only_modality in (None, 0, 1)])  # fmt: skip
def test_every_recipe_trains_a_step_and_its_weights_predict_any_subset(cubes, name):
    recipe = replace(RECIPES[name], length=Length(1, 2, 1))
    trainer = trainer_of(cubes, recipe)
    trainer.logger.local_logger.plot_progress_png = lambda folder: None
    if cubes.unpaired and (
        reasons := [term.loss.needs_registered for term in recipe.terms if term.loss.needs_registered]
    ):
        with pytest.raises(ValueError, match=reasons[0]):
            trainer.run_training()
        return
    trainer.run_training()
    assert all(torch.isfinite(value).all() for value in trainer.network.state_dict().values())
    again = type(trainer).build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 2, 2, False)
    again.load_state_dict(trainer.network.state_dict())
    again.order_for(torch.device("cpu"))
    only = recipe.only_modality
    subsets = torch.tensor([[1, 1], [1, 0], [0, 1]] if only is None else [[m == only for m in (0, 1)]])
    x = torch.randn(2, 16, 16, 16) * subsets[:, :, None, None, None]
    with torch.no_grad():
        logits = again.eval()(x)
        assert logits.equal(trainer.network.eval()(x))
    assert logits.isfinite().all()
    assert len(logits.flatten(1).unique(dim=0)) == len(subsets), "each subset is predicted from what it shows"
    saved = torch.load(f"{trainer.output_folder}/checkpoint_final.pth", weights_only=False)
    rows = recipe.rows()
    assert trainer.recipe.rows() == rows
    assert saved["recipe"] == rows
    log = Path(trainer.log_file).read_text()
    assert all(f"{what}: {value}" in log for what, value in rows.items())


def test_a_checkpoint_of_another_recipe_is_not_continued(registered, tmp_path):
    trainer_of(registered, PLAIN).save_checkpoint(str(tmp_path / "x.pth"))
    changed = replace(PLAIN, mirrored_axes=(0, 1, 2))
    with pytest.raises(
        ValueError, match=r"another recipe than Composed has now \(mirrored axes: 2, and now: 0, 1, 2\)"
    ):
        trainer_of(registered, changed).load_checkpoint(str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("name", "combination"),
    [
        ("CMCTrainer", "fused, features of modalities never registered weighted by validation Dice"),
        ("CMCTrainer_separate", "weighted by validation Dice"),
        ("SupTrainer", "weighted by validation Dice"),
        ("MMFormerTrainer", "one prediction"),
        ("EFCDTrainer", "Dempster's rule"),
        ("CMCTrainerAsPrinted", "equal weights"),
    ],
)
def test_the_text_of_the_combination_is_of_what_the_network_combines(registered, name, combination):
    assert RECIPES[name].rows()["combination"] == combination
    trainer = registered.trainer(type("Named", (CMCTrainer,), {"recipe": RECIPES[name], "seed": 0}))
    trainer.initialize()
    network = trainer.network
    assert isinstance(network.combination, ByReliability) == (
        combination in ("weighted by validation Dice", "equal weights")
    )
    assert (network.fusion_weights is not None) == combination.startswith("fused")


def test_a_recipe_reads_as_a_table():
    assert RECIPES["CMCTrainerAsPrinted"].rows() == {
        "terms": "supervised; alpha = 0.1 exp(-5 (1 - r)), rising: csc (printed); "
        "beta = 0.1 exp(-5 r), falling: cac (printed)",
        "network": "SeparateModalities",
        "views": "FusePairs",
        "fusion": "FuseOrSplit(split=0.0)",
        "unlabelled pairs": "1 of the labelled",
        "mirrored axes": "2",
        "Dice": "over the batch",
        "optimizer": "ConstantAdam(rate=1e-05)",
        "pseudo-labels": "none",
        "combination": "equal weights",
        "length": "nnU-Net's",
    }
    assert ByLength() == RECIPES["CMCTrainer"].optimizer
