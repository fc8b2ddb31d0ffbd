"""The options that follow from the name of a set and the name of a recipe. Loads no TensorFlow."""

from collections.abc import Mapping
from typing import Any

from pipelines.words import nearest, spell

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
# What measured better on photographs: docs/worth.md. The rates are those of SGD, for one cycle of so many epochs.
MODERN: dict[str, Any] = {
    "epochs": 20,
    "learning_rate": 0.003,
    "head_learning_rate": 0.03,
    "schedule": "one_cycle",
}
# Networks that learn more at other rates, those of the backbone and of the classifier.
RATES_OF = {"efficientnet_lite0": {"learning_rate": 0.005, "head_learning_rate": 0.05}}
MODERN_REGIONS: dict[str, Any] = {
    "top_n": 2,
    "fusion": "mean",
    "localizer": "moments",
    "box_jitter": 0.1,
    "one_look_share": 0.67,
}


def recipe_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of options that the user does not give, as far as the recipe or the set decides them.

    Args:
        given: option -> value, at least for `dataset`, `recipe` (None: the set's own), `backbone`, `top_n`, `epochs`,
            `optimizer` and `schedule`.

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
        defaults["decay_kernels_only"] = True
        if given["optimizer"] == "sgd" and given["schedule"] in (None, MODERN["schedule"]):
            defaults |= MODERN | RATES_OF.get(given["backbone"], {})
        if given["top_n"]:
            defaults |= MODERN_REGIONS
            if given["epochs"] == 1:  # none to spare for one look alone
                del defaults["one_look_share"]
    return defaults | (DIGITS if given["dataset"] == "digits" else {})


def own_recipe(dataset: str) -> tuple[str, str]:
    """The recipe that a set gets by default, and why, as the end of a sentence."""
    if dataset == "digits":
        return "paper", "with what digits need, which are learnt from scratch"
    if dataset in OF_THE_PAPER:
        return "paper", f"by which others report results on {dataset}"
    return (
        "modern",
        "whose rates measured better on photographs (docs/worth.md); --recipe paper is as published",
    )


def recipe_line(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Which recipe a run takes, why, and in what it differs from it.

    Args:
        values: all options of the run.
        defaults: what they are by default in the paper's recipe.
    """
    usual, why = own_recipe(values["dataset"])
    expected = {**defaults, **recipe_defaults(values)}
    differing = [
        spell(name)
        for name in (*MODERN, *MODERN_REGIONS, "decay_kernels_only")
        if values[name] != expected[name] and (values["top_n"] or name not in MODERN_REGIONS)
    ]
    said = f"recipe: {values['recipe']}, {why if values['recipe'] == usual else 'as asked for'}"
    return said + (f"; but for {', '.join(differing)}" if differing else "")
