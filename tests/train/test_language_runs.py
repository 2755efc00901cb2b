# SPDX-License-Identifier: Apache-2.0
"""Runs on tokens and signals through the one loop: what the model is told, what is scored."""

import pytest

from efficient_layers import train
from efficient_layers.train.defaults import default_config
from efficient_layers.train.evaluate import metric_names

SMALL = {"features": 16, "depth": 1, "num_heads": 2, "max_length": 32}


def _config(data, objective, **model):
    config = default_config()
    with config.unlocked():
        config.model = model
    config.data.name, config.data.length, config.data.batch_size = data, 32, 8
    config.objective.name = objective
    config.train.duration = "2 steps"
    config.report.batches = (1,)
    return config


@pytest.mark.parametrize(
    ("data", "objective", "model", "fields"),
    [
        ("stdlib", "language_modelling", {"name": "gpt2"}, {"vocabulary": 259}),
        ("mqar", "language_modelling", {"name": "gpt2"}, {"vocabulary": 8192}),
        ("tfds:lm1b", "masked_language_modelling", {"name": "bert", "head": "mlm"}, {}),
        ("listops", "classification", {"name": "bert"}, {"vocabulary": 16, "num_classes": 10}),
        ("tfds:glue/sst2", "classification", {"name": "bert"}, {"num_classes": 2}),
    ],
)
def test_the_data_decide_what_the_model_is_silent_about(data, objective, model, fields):
    config = _config(data, objective, **model, **SMALL)
    if data == "listops":
        with config.unlocked():
            config.data.options.update({"min_length": 5})
    experiment = train.build(config, train.Options(smoke=True))
    built = experiment.description["create"]["fields"]
    assert built.items() >= fields.items()
    scored = {"accuracy", "loss", "cross_entropy" if fields.get("num_classes") else "perplexity"}
    assert scored <= set(metric_names(experiment))
    assert experiment.input.batch_spec()["tokens"][0] == (8, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective.label_smoothing": 0.1}, "has no 'label_smoothing'; it has no settings"),
        ({"data.length": 64}, "64"),
        ({"data.vocabulary_file": "nowhere.txt", "data.name": "tfds:lm1b"}, "no vocabulary"),
        ({"objective.name": "classification"}, "needs a label a row"),
    ],
)
def test_what_does_not_fit_is_refused(change, message, tmp_path):
    config = _config("tfds:lm1b", "language_modelling", name="gpt2", **SMALL)
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        train.train(config, tmp_path / "run", train.Options(smoke=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "objective", "model"),
    [
        ("stdlib", "language_modelling", {"name": "gpt2"}),
        ("tfds:lm1b", "masked_language_modelling", {"name": "bert", "head": "mlm"}),
        ("tfds:glue/sst2", "classification", {"name": "bert"}),
    ],
)
def test_a_run_on_tokens_is_whole(data, objective, model, tmp_path):
    config = _config(data, objective, **model, **SMALL)
    result = train.train(config, tmp_path, train.Options(smoke=True))
    assert result.reason == "finished"
    assert result.report["quality"]["test_loss"] > 0
    assert train.dry_run(config, train.Options(smoke=True)).count("8 x 32") == 1
