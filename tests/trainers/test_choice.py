"""CMCTrainer takes the recipe for shapes or the one for lesions, from the labelled cases."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from short_trainers import resumed, short

from nnunet_cmc.networks.changes import SeparateModalities
from nnunet_cmc.trainers.recipe import Length
from nnunet_cmc.trainers.recipes import LESIONS, RECIPES, SHAPES

LENGTH = Length(2, 2, 1)
Short = short("CMCTrainer")


def put(cubes, corner_of) -> None:
    """Let the properties of each case say that its cube begins at ``corner_of(i)``."""
    for i, file in enumerate(sorted(cubes.images.glob("*.pkl"))):
        properties = load_pickle(str(file))
        voxels = properties["class_locations"][1]
        voxels[:, 1:] += corner_of(i) - voxels[:, 1:].min(0)
        write_pickle(properties, str(file))


def at_one_place(i: int):
    return 5


def at_corners(i: int):
    return [12 * (i >> bit & 1) for bit in range(3)]


@pytest.mark.parametrize(("corner_of", "taken", "words"), [
    (at_one_place, SHAPES, "keep their places in the body, so they are taken for shapes"),
    (at_corners, LESIONS, "keep no place in the body, so they are taken for lesions"),
], ids=["shapes", "lesions"])  # fmt: skip
def test_classes_that_keep_their_places_are_shapes(cubes, corner_of, taken, words):
    put(cubes, corner_of)
    trainer = cubes.trainer(Short)
    trainer.run_training()
    assert trainer.recipe == replace(taken, length=LENGTH, purpose=trainer.recipe.purpose)
    log = Path(trainer.log_file).read_text()
    assert words in log
    assert "cube" in log.partition(words)[2].partition("\n")[0], "the classes are named"
    saved = torch.load(f"{trainer.output_folder}/checkpoint_final.pth", weights_only=False)
    assert saved["recipe"] == trainer.recipe.rows()
    assert {"csc", "cac", "pseudo"} <= trainer.terms.keys(), "either way all terms are there"
    assert Short.recipe.for_lesions is not None, "the choice is this training's"


def test_without_two_cases_of_a_class_it_is_a_shape(cubes):
    for file in cubes.images.glob("*.pkl"):
        write_pickle(load_pickle(str(file)) | {"class_locations": {1: []}}, str(file))
    trainer = cubes.trainer(Short)
    trainer.initialize()
    assert trainer.recipe == replace(SHAPES, length=LENGTH, purpose=trainer.recipe.purpose)


def test_the_labels_of_hidden_cases_do_not_choose(cubes):
    put(cubes, at_one_place)
    for case in cubes.hidden():
        file = cubes.images / f"{case}.pkl"
        write_pickle({**load_pickle(str(file)), "class_locations": {1: [[0, 0, 0, 0]]}}, str(file))
    trainer = cubes.trainer(Short)
    trainer.initialize()
    assert trainer.recipe == replace(SHAPES, length=LENGTH, purpose=trainer.recipe.purpose)


@pytest.mark.parametrize("corner_of", [at_one_place, at_corners])
def test_a_training_that_is_continued_makes_the_same_choice(registered, corner_of):
    put(registered, corner_of)
    whole = registered.trainer(Short)
    whole.run_training()
    again = resumed(registered, Short)
    assert again.recipe == whole.recipe
    torch.testing.assert_close(again.network.state_dict(), whole.network.state_dict(), rtol=0, atol=0)


def test_another_split_is_named_as_such_where_it_leads_to_another_recipe(registered, tmp_path):
    put(registered, at_corners)
    trainer = registered.trainer(Short)
    trainer.initialize()
    trainer.get_dataloaders()
    trainer.save_checkpoint(str(tmp_path / "x.pth"))
    put(registered, at_one_place)
    train, val = trainer.do_split()
    registered.split(train[:1], val, registered.hidden())
    with pytest.raises(ValueError, match=f'another split than .*: case {train[1]} was in "train"'):
        registered.trainer(Short).load_checkpoint(str(tmp_path / "x.pth"))


@pytest.mark.parametrize(("corner_of", "taken"), [(at_one_place, SHAPES), (at_corners, LESIONS)])
def test_fold_all_chooses_from_all_cases(registered, corner_of, taken):
    put(registered, corner_of)
    trainer = registered.trainer(Short, fold="all")
    trainer.initialize()
    assert trainer.recipe == replace(taken, length=LENGTH, purpose=trainer.recipe.purpose)


def test_both_have_one_network():
    other = replace(LESIONS, network=(SeparateModalities(), *LESIONS.network))
    with pytest.raises(ValueError, match="must have one network"):
        replace(RECIPES["CMCTrainer"], for_lesions=other)
