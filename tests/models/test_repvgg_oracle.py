# SPDX-License-Identifier: Apache-2.0
"""RepVGG against timm on random weights, with its branches and re-parameterised."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised, torch_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES = 7
SIZES = [(32, 32), (49, 33)]


def test_rows_of_timm_with_branches_and_without():
    load("timm")
    from timm.models import byobnet
    from timm.utils.model import reparameterize_model

    rows = [[24, 2, 2], [40, 1, 2]]
    blocks = tuple(byobnet.ByoBlockCfg("rep", d=d, c=c, s=s, gs=0) for c, d, s in rows)
    cfg = byobnet.ByoModelCfg(blocks, stem_type="rep", stem_chs=16)
    theirs = randomised(byobnet.ByobNet(cfg, num_classes=CLASSES))
    fields = {"stages": rows, "stem_features": 16, "num_classes": CLASSES}
    inputs = [images(size) for size in SIZES]
    for deploy in (False, True):
        theirs = reparameterize_model(theirs) if deploy else theirs
        ours = el.models.create("repvgg", rngs=nnx.Rngs(0), deploy=deploy, **fields)
        check_weights(ours, theirs, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repvgg_a0", "repvgg_a2"])
def test_timm(name):
    theirs = randomised(torch_model("timm", name, num_classes=CLASSES))
    ours = el.models.create(name, num_classes=CLASSES, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images(size) for size in SIZES])
