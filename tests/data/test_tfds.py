# SPDX-License-Identifier: Apache-2.0
"""TFDS data sets, read without TensorFlow: a small one written here, and the real CIFAR-10."""

import io
import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
from PIL import Image

from efficient_layers import data
from efficient_layers.data import tfds

pytestmark = pytest.mark.fast

REAL = Path(__file__).parents[3] / "shared" / "tfds"
needs_real = pytest.mark.skipif(
    not (REAL / "cifar10").is_dir(), reason=f"no prepared CIFAR-10 in {REAL}"
)
FEATURES = {
    "image": {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {"shape": {"dimensions": ["28", "28", "1"]}, "dtype": "uint8"},
    },
    "label": {
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": "10"},
    },
}


def pixels(row):
    return np.random.default_rng(row).integers(0, 256, (28, 28, 1), dtype=np.uint8)


def write_split(folder, split, rows):
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    path = folder / f"mnist-{split}.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for row in rows:
        png = io.BytesIO()
        Image.fromarray(pixels(row)[..., 0]).save(png, "PNG")
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(png.getvalue())
        example.features.feature["label"].int64_list.value.append(row % 10)
        writer.write(example.SerializeToString())
    writer.close()


def write_mnist(root, splits, file_format="array_record"):
    """A prepared "mnist:3.0.1" with few images, as `tfds build` leaves it."""
    folder = root / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    described = []
    for name, rows in splits.items():
        write_split(folder, name, rows)
        described.append(
            {
                "name": name,
                "shardLengths": [str(len(rows))],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    facts = {
        "name": "mnist",
        "version": "3.0.1",
        "fileFormat": file_format,
        "splits": described,
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(facts))
    top = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    (folder / "features.json").write_text(
        json.dumps({"pythonClassName": top, "featuresDict": {"features": FEATURES}})
    )


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    write_mnist(root, {"train": range(40), "test": range(100, 112)})
    return root


@pytest.mark.parametrize("cache", [False, True])
def test_examples_are_those_written(mnist, cache):
    splits = data.load("tfds:mnist", data_dir=mnist, validation_fraction=0.25, cache=cache)
    assert splits.info.sizes == {"train": 30, "validation": 10, "test": 12}
    assert splits.info.image_shape == (28, 28, 1)
    assert splits.info.num_classes == 10
    assert "mnist/3.0.1" in splits.info.provenance
    rows = np.array([11, 0, 4])
    for batch in (splits.test.batch(rows) if cache else None, read(splits.test, rows)):
        if batch is not None:
            np.testing.assert_array_equal(batch["image"], [pixels(100 + row) for row in rows])
            np.testing.assert_array_equal(batch["label"], rows % 10)


def read(source, rows):
    elements = [source[row] for row in rows]
    return {key: np.stack([element[key] for element in elements]) for key in elements[0]}


def test_train_and_validation_part_the_train_split(mnist):
    splits = data.load("tfds:mnist", data_dir=mnist, validation_fraction=0.25)
    seen = []
    for part in (splits.train, splits.validation):
        for batch in data.eval_batches(part, batch_size=5):
            seen += [image.tobytes() for image in (batch["image"] * 255).round().astype(np.uint8)]
    assert sorted(seen) == sorted(pixels(row).tobytes() for row in range(40))


def test_a_named_validation_split_leaves_train_whole(mnist):
    splits = data.load(
        "tfds:mnist",
        data_dir=mnist,
        train_split="train[:75%]",
        validation_split="train[75%:]",
    )
    assert splits.info.sizes == {"train": 30, "validation": 10, "test": 12}
    np.testing.assert_array_equal(splits.validation[0]["image"], pixels(30))


def test_a_source_goes_to_a_worker_as_names(mnist):
    source = tfds.TfdsSource("mnist", "test", str(mnist))
    len(source)
    sent = pickle.dumps(source)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent)[3]["image"], pixels(103))


def test_missing_data_names_the_command_and_downloads_nothing(tmp_path):
    with pytest.raises(data.MissingDataError) as error:
        data.load("tfds:cifar100", data_dir=tmp_path / "my data")
    assert "pip install '.[prepare]'" in str(error.value)
    command = shlex.split(str(error.value).splitlines()[2])
    assert command[:2] == ["python", "-c"]
    made = Mock()
    with patch.dict(sys.modules, tensorflow_datasets=made):
        exec(command[2], {})
    made.builder.assert_called_once_with(
        "cifar100", data_dir=str(tmp_path / "my data"), file_format="array_record"
    )
    made.builder().download_and_prepare.assert_called_once_with()
    assert list(tmp_path.iterdir()) == []


def test_missing_data_that_only_tensorflow_could_describe(tmp_path, capfd):
    with pytest.raises(data.MissingDataError, match=r'builder\("coco/2017", '):
        data.load("tfds:coco/2017", data_dir=tmp_path)


def test_another_file_format_names_the_command(tmp_path):
    write_mnist(tmp_path, {"train": range(4)}, file_format="tfrecord")
    with pytest.raises(data.MissingDataError, match=r"written as tfrecord(.|\n)*/array_record\","):
        data.load("tfds:mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        (
            {"train": 4, "validation": 2},
            {},
            "no split 'test' .*has train, validation.*'validation'",
        ),
        ({"train": 4}, {}, r"train_split='train\[:80%\]'"),
        ({"train": 4, "test": 2}, {"validation_split": "dev"}, "Set validation_split to one"),
        ({"train": 4, "test": 2}, {"test_split": "train"}, "one purpose only"),
    ],
)
def test_splits_that_are_not_there(tmp_path, splits, options, message):
    write_mnist(tmp_path, {name: range(count) for name, count in splits.items()})
    with pytest.raises(ValueError, match=message):
        data.load("tfds:mnist", data_dir=tmp_path, **options)


def test_validation_may_be_read_as_the_test(tmp_path):
    write_mnist(tmp_path, {"train": range(20), "validation": range(50, 53)})
    splits = data.load("tfds:mnist", data_dir=tmp_path, test_split="validation")
    assert splits.info.sizes == {"train": 17, "validation": 3, "test": 3}
    np.testing.assert_array_equal(splits.test[2]["image"], pixels(52))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifr10", r"no data set 'cifr10'\. Did you mean cifar10"),
        ("cifar10:9.9.9", "cannot be loaded at version 9.9.9"),
    ],
)
def test_names_tfds_does_not_know(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        data.load(f"tfds:{name}", data_dir=tmp_path)


def test_a_data_set_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no image classification data set"):
        tfds.features_of(tfds.builder_of("ag_news_subset", str(tmp_path)))


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("RGBA", 3), ("RGB", 1), ("CMYK", 3)])
def test_images_get_the_channels_the_data_set_promises(mode, channels):
    file = io.BytesIO()
    Image.new(mode, (5, 4)).save(file, "TIFF")
    assert tfds.decode_image(file.getvalue(), channels).shape == (4, 5, channels)


def test_tensorflow_is_never_imported(mnist):
    script = (
        "import sys\n"
        "from efficient_layers import data\n"
        f"splits = data.load('tfds:mnist', data_dir={str(mnist)!r})\n"
        "batch = next(data.train_iterator(splits.train, batch_size=4, seed=0))\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print(batch['image'].shape)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "(4, 28, 28, 1)\n", done.stderr
    assert done.stderr == ""


@needs_real
def test_the_real_cifar10():
    splits = data.load("tfds:cifar10", data_dir=REAL)
    assert splits.info.sizes == {"train": 42500, "validation": 7500, "test": 10000}
    batch = next(iter(data.eval_batches(splits.test, batch_size=100)))
    assert batch["image"].shape == (100, 32, 32, 3)
    # The first labels of CIFAR-10's test file are 3 8 8 0 in the original; this copy is shuffled.
    assert set(batch["label"].tolist()) <= set(range(10))
    assert 0.3 < batch["image"].mean() < 0.6
