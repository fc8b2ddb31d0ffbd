"""The options that follow from the name of a set and the name of a recipe. Loads no TensorFlow."""

from collections.abc import Mapping
from typing import Any

from pipelines.words import nearest

RECIPES = ("paper", "modern")
OF_THE_PAPER = (
    "coco",
    "coco2017",
    "voc2007",
    "voc2012",
)  # sets with results by the paper, or by others who used its recipe

# `digits` is learnt from scratch in minutes on two CPU cores: hence a small network, Adam, few epochs, small images.
# No augmentation: a mirrored digit is not a digit, and the scenes have every colour already.
DIGITS: dict[str, Any] = {
    "augment": "none",
    "backbone": "tiny_resnet",
    "weights": "none",
    "image_size": 64,
    "epochs": 6,
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "warmup_epochs": 0.5,
}
# The options that gave the best results on photographs: docs/worth.md.
MODERN: dict[str, Any] = {
    "epochs": 20,
    "learning_rate": 0.005,
    "head_learning_rate": 0.05,
    "schedule": "one_cycle",
    "decay_kernels_only": True,
}
MODERN_REGIONS: dict[str, Any] = {"fusion": "mean", "localizer": "moments"}


def recipe_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of options that the user does not give, as far as the recipe or the set decides them.

    Args:
        given: option -> value, at least for `dataset`, `recipe` (None: the set's own) and `top_n`.

    Raises:
        ValueError: there is no such recipe.
    """
    recipe = given["recipe"] or own_recipe(given["dataset"])[0]
    if recipe not in RECIPES:
        raise ValueError(
            f"`--recipe` must be one of {', '.join(RECIPES)}. Received: {recipe!r}.{nearest(recipe, RECIPES)}"
        )
    defaults: dict[str, Any] = {"recipe": recipe}
    if recipe == "modern":
        defaults |= MODERN | (MODERN_REGIONS if given["top_n"] else {})
    return defaults | (DIGITS if given["dataset"] == "digits" else {})


def own_recipe(dataset: str) -> tuple[str, str]:
    """The recipe that a set gets by default, and why, as the end of a sentence."""
    if dataset == "digits":
        return "paper", "with what digits need, which are learnt from scratch"
    if dataset in OF_THE_PAPER:
        return "paper", f"by which others report results on {dataset}"
    return "modern", "which measured best on photographs (docs/worth.md); --recipe paper is as published"


def recipe_line(dataset: str, recipe: str) -> str:
    """A line that says which recipe a run uses, and why."""
    usual, why = own_recipe(dataset)
    return f"recipe: {recipe}, {why if recipe == usual else 'as asked for'}"
