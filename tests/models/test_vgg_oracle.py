# SPDX-License-Identifier: Apache-2.0
"""VGG against torchvision and timm on random weights; columns A and D with few channels."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES, HIDDEN, WIDTHS = 7, 24, (4, 8, 12, 16, 16)
SIZES = [(32, 32), (96, 65)]


def ours(name, hidden):
    counts = [stage[1] for stage in el.models.describe(name)["fields"]["stages"]]
    stages = [list(row) for row in zip(WIDTHS, counts, strict=True)]
    fields = {"stages": stages, "hidden_features": hidden, "num_classes": CLASSES}
    return el.models.create(name, rngs=nnx.Rngs(0), **fields)


def narrow(column):
    """A column of theirs, with our widths."""
    known = dict(zip((64, 128, 256, 512), WIDTHS, strict=False))
    return [known.get(entry, entry) for entry in column]


@pytest.mark.parametrize(("name", "column"), [("vgg11", "A"), ("vgg16_bn", "D")])
def test_torchvision(name, column):
    torch = load("torch")
    load("torchvision")
    from torchvision.models import vgg

    features = vgg.make_layers(narrow(vgg.cfgs[column]), batch_norm=name.endswith("bn"))
    theirs = vgg.VGG(features, init_weights=False)
    sizes = {0: (49 * WIDTHS[-1], HIDDEN), 3: (HIDDEN, HIDDEN), 6: (HIDDEN, CLASSES)}
    for index, (inputs, outputs) in sizes.items():
        theirs.classifier[index] = torch.nn.Linear(inputs, outputs)
    check_weights(ours(name, HIDDEN), randomised(theirs), [images(size) for size in SIZES])


def test_timm():
    load("timm")
    from timm.models import vgg

    theirs = vgg.VGG(narrow(vgg.cfgs["vgg11"]), num_classes=CLASSES)
    inputs = [images(size) for size in SIZES]
    check_weights(ours("vgg11", 4096), randomised(theirs), inputs, source="timm")
