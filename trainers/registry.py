"""Trainers by name: a recipe's name, followed by any of the suffixes below in any order.

``_Nepochs``     N epochs
``_smoke``       3 epochs of 2 iterations: does everything run? The last learns from unlabelled scans, too
``_demo``        10 epochs of 40 iterations: minutes on a CPU with CMCPlannerNNUNetSmall
``_cmcbudget``   epochs and iterations from the environment: see :mod:`~nnunet_cmc.trainers.budget`
"""

import functools
import re
from dataclasses import replace

from nnunet_cmc.trainers.budget import Budget, nnUNetTrainer_cmcbudget
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.recipe import Length
from nnunet_cmc.trainers.recipes import RECIPES

SUFFIX = re.compile(r"(?P<base>.+)_((?P<epochs>[1-9]\d*)epochs|(?P<short>smoke|demo)|(?P<budget>cmcbudget))")
SHORT = {"smoke": Length(3, 2, 1), "demo": Length(10, 40, 4)}


@functools.cache
def trainer_class(name: str) -> type:
    """Find the trainer of this name; ``nnUNetTrainer_cmcbudget`` is nnU-Net's own with a budget.

    Raises:
        ValueError: there is no such recipe, or the length is set twice.
    """
    if name == nnUNetTrainer_cmcbudget.__name__:
        return nnUNetTrainer_cmcbudget
    base = name
    said: dict[str, str] = {}
    while base not in RECIPES and (match := SUFFIX.fullmatch(base)):
        (kind, value), *_ = ((kind, value) for kind, value in match.groupdict().items() if value and kind != "base")
        if kind in said:
            raise ValueError(f"The trainer {name} sets its length twice: omit {said[kind]} or {value}.")
        base, said[kind] = match["base"], value
    if "budget" in said and len(said) > 1:
        other = next(value for kind, value in said.items() if kind != "budget")
        raise ValueError(f"The trainer {name} sets its length twice: omit {other} or {said['budget']}.")
    if base not in RECIPES:
        raise ValueError(
            f"There is no trainer {name}: take one of {', '.join(RECIPES)}, followed by _Nepochs (any N), _smoke, "
            "_demo or _cmcbudget if you like."
        )
    if name == CMCTrainer.__name__:
        return CMCTrainer
    length = SHORT.get(said.get("short", ""), Length())
    if "epochs" in said:
        length = replace(length, epochs=int(said["epochs"]))
    recipe = replace(RECIPES[base], length=length)
    bases = (Budget, CMCTrainer) if "budget" in said else (CMCTrainer,)
    description = f"{recipe.purpose}\n\n{recipe.differences}".strip()
    return type(name, bases, {"recipe": recipe, "__doc__": description, "__module__": __name__})


def __getattr__(name: str) -> type:
    """Find a trainer as an attribute of this module, as imports and pickle do."""
    try:
        return trainer_class(name)
    except ValueError as error:
        raise AttributeError(str(error)) from error
