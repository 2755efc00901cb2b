# SPDX-License-Identifier: Apache-2.0
"""What is compared: values, names, directions."""

import pytest

from efficient_layers.report import collect, folder_names, metrics

pytestmark = pytest.mark.fast


def test_values_come_from_their_sections(make_report):
    (run,) = collect([make_report(accuracy=0.9)], names=["b0"])
    assert run.name == "b0"
    assert run.values == {
        "quality": 0.9,
        "params": 4500.0,
        "macs": 270_000.0,
        "weight_bytes": 18_000.0,
        "latency": 0.4,
    }
    assert (run.examples, run.seconds) == (360, 38.2)
    assert run.text("quality") == "90.00\u00a0%"
    assert run.text("latency") == "400\u00a0µs"


def test_names_are_made_unique(make_report):
    names = [run.name for run in collect([make_report("a"), make_report("b"), make_report("a")])]
    assert names == ["a", "b", "a (2)"]


def test_missing_values_are_absent(make_report):
    report = make_report()
    del report["latency"], report["quality"]["test_accuracy"]
    run, _ = collect([report, make_report()])
    assert set(run.values) == {"params", "macs", "weight_bytes"}


def test_less_of_a_loss_is_better():
    assert metrics("test_accuracy")["quality"].maximise
    assert not metrics("test_loss")["quality"].maximise
    assert not metrics()["macs"].maximise


def test_errors(make_report):
    with pytest.raises(ValueError, match="No report holds quality 'f1'; the reports hold"):
        collect([make_report()], quality="f1")
    with pytest.raises(ValueError, match="Got 2 names for 1 reports"):
        collect([make_report()], names=["a", "b"])


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/b0", "runs/b1"], ["b0", "b1"]),
        (["x/b0", "y/b0", "y/b1"], ["x/b0", "y/b0", "y/b1"]),
        (["runs/b0"], ["b0"]),
        (["same", "same"], ["same", "same"]),
        ([], []),
    ],
)
def test_folder_names_are_the_shortest_that_differ(folders, names):
    assert folder_names(folders) == names
