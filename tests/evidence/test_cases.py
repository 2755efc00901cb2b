# SPDX-License-Identifier: Apache-2.0
"""The suites as data."""

import dataclasses

import pytest

import efficient_layers as el
from efficient_layers import evidence

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("suite", sorted(evidence.SUITES))
def test_case_names_are_unique(suite):
    names = [case.name for case in evidence.SUITES[suite]]
    assert len(set(names)) == len(names)


def test_models_suite_holds_the_promised_rows():
    names = {case.name for case in evidence.SUITES["models"]}
    wanted = {"inference/1", "inference/16", "training/16"}
    workloads = {name.partition("/")[0] for name in names} - {"menghani_cnn_32"}
    assert len(workloads) == 9
    assert {f"{workload}/{mode}" for workload in workloads for mode in wanted} <= names


def test_models_suite_names_models_that_exist():
    for case in evidence.SUITES["models"]:
        el.models.describe(case.subject.name, **case.subject.fields)


def test_cases_are_frozen():
    case = evidence.SUITES["models"][0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.batch = 2


def test_select():
    assert [c.name for c in evidence.select("models", "mobilenet_v2*/training/*")] == [
        "mobilenet_v2_224/training/16"
    ]
    with pytest.raises(ValueError, match="No suite is named 'model'"):
        evidence.select("model")
    with pytest.raises(ValueError, match="matches no case"):
        evidence.select("layers", "resnet*")
    assert len(evidence.select("models", "mobilenet_v2*/inference/1,menghani*")) == 4


def test_layers_suite_holds_the_depthwise_layers_of_four_networks():
    cases = evidence.select("layers", "depthwise*")
    assert {case.kind for case in cases} == {"depthwise"}
    assert len({case.workload for case in cases}) == 32
    assert {(case.mode, case.batch) for case in cases} == {
        (mode, batch) for mode in ("inference", "training") for batch in (1, 8)
    }
    assert all(c.subject.groups == c.subject.out_features == c.image[-1] for c in cases)
