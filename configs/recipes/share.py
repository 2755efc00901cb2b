# SPDX-License-Identifier: Apache-2.0
"""Cross-layer sharing: the blocks of a trained stack become a few, which are then trained.

    python -m launch.compress --workdir=RUN --recipe=configs/recipes/share.py:2 --out=RUN_SHARE

The argument is the number of distinct blocks. Reference: Lan et al., *ALBERT* (arXiv 1909.11942),
section 3.1, which trains them so from the start.
"""

from ml_collections import ConfigDict

from efficient_layers.train import default_recipe


def get_config(groups: str = "2") -> ConfigDict:
    """Runs of neighbouring blocks become one each, their first; then 40 epochs."""
    if not groups.isdecimal() or int(groups) < 1:
        raise ValueError(f"configs/recipes/share.py:{groups}: how many distinct blocks? 1, 2, ...")
    recipe = default_recipe()
    steps = ({"technique": "Share", "path": "blocks/*", "groups": int(groups)},)
    with recipe.unlocked():
        recipe.phases.share = {"apply": steps}
        recipe.phases.tune = {
            "train": {"train": {"duration": "40 epochs"}, "optimizer": {"learning_rate": 1e-3}}
        }
    recipe.order = ("share", "tune")
    return recipe
