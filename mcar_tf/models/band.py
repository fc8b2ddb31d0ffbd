"""Check what decides whether a second look is worth it, the look band and the doubt. Loads no TensorFlow.

A class that the first look is nearly sure of gains nothing from a maximum, and one that it nearly excludes gains
rarely. With a band, only classes whose global probability lies in it (ends included) are looked at again, at most N.
A region that is not looked at counts as a second look at the whole image: its logits are those of the first look.

The doubt is of a whole image: the entropy of its classes' global probabilities p, the sum of
-p log2(p) - (1 - p) log2(1 - p) over all C classes, in bits. Where it is small, no region is looked at.
"""

import math
from collections.abc import Callable, Sequence


def check_looks(
    band: Sequence[float] | None,
    doubt: float,
    top_n: int,
    named: Callable[[str], str] = lambda name: name,
) -> None:
    """Raise an error if this is not a band or not a doubt, or if there are no regions to look at.

    Args:
        band: lowest and highest global probability of the classes that are looked at again; None: any probability.
        doubt: least doubt of the images that are looked at again, in bits; 0: any doubt.
        top_n: N, the number of regions.
        named: how to write an option's name.

    Raises:
        ValueError: a value is not valid; the message says what it may be and what it is.
    """
    if band is not None and (len(band) != 2 or not 0.0 <= band[0] < band[1] <= 1.0):
        received = " ".join(f"{value:g}" for value in band)
        ends = sorted(value for value in band if 0.0 <= value <= 1.0)
        works = ends if len(band) == len(ends) == 2 and ends[0] < ends[1] else [0.05, 0.95]
        raise ValueError(
            f"`{named('look_band')}` must be two ascending probabilities in [0, 1], such as"
            f" {works[0]:g} {works[1]:g}. Received: {received}"
        )
    if not 0.0 <= doubt < math.inf:
        raise ValueError(f"`{named('look_doubt')}` must be 0 or more, in bits. Received: {doubt:g}")
    for name, value in (("look_band", band), ("look_doubt", doubt)):
        if value and top_n == 0:
            raise ValueError(
                f"`{named(name)}` does nothing with `{named('top_n')}` 0, which looks once. Leave it out."
            )
