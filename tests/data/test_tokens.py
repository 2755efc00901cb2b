# SPDX-License-Identifier: Apache-2.0
"""Text: windows of a corpus, padded rows, WordPiece against transformers, what TFDS holds."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from efficient_layers import data
from efficient_layers.data.stdlib import files
from efficient_layers.data.tokens import ByteTokenizer, Texts, Windows
from efficient_layers.data.word_piece import WordPiece

pytestmark = pytest.mark.fast

REAL = Path(__file__).parents[3] / "shared" / "tfds"
needs_real = pytest.mark.skipif(not (REAL / "glue").is_dir(), reason=f"no text in {REAL}")
PIECES = "[PAD] [UNK] [CLS] [SEP] [MASK] the un ##aff ##able cafe caf ##e , . ! ' 中 文 a ##b $"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("\n".join(PIECES.split()) + "\n", encoding="utf-8")
    return path


def test_windows_follow_each_other_and_drop_the_rest():
    windows = Windows(np.arange(11, dtype=np.uint8), 4)
    assert len(windows) == 2
    np.testing.assert_array_equal(windows[1]["tokens"], [4, 5, 6, 7])
    assert windows.batch(np.array([1, 0]))["tokens"].dtype == np.int32
    with pytest.raises(ValueError, match="3 tokens has no row of 4: set a smaller"):
        Windows(np.arange(3, dtype=np.uint8), 4)


def test_texts_are_padded_and_cut():
    source = [{"text": b"ab", "label": 1}, {"text": b"abcdefgh", "label": 0}]
    texts = Texts(source, ByteTokenizer(), 5)
    np.testing.assert_array_equal(texts[0]["tokens"], [258, 97, 98, 256, 256])
    np.testing.assert_array_equal(texts[0]["token_mask"], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(texts[1]["tokens"], [258, 97, 98, 99, 100])
    assert texts[1]["token_mask"].min() == 1


def test_the_standard_library_is_split_by_file():
    splits = data.load("stdlib", length=64, validation_fraction=0.05)
    names = [name for name, _ in files()]
    assert names == sorted(names)
    assert "argparse.py" in names
    assert not any("site-packages" in name or "/test/" in name for name in names)
    total = sum(len(text) for _, text in files())
    kept = 64 * sum(splits.info.sizes.values())
    assert total - 3 * 64 < kept <= total
    first = splits.test[0]["tokens"]
    assert bytes(first.astype(np.uint8)) == files()[0][1][:64]
    assert "sha256" in splits.info.provenance


@pytest.mark.oracle
@pytest.mark.parametrize(
    "text",
    [
        "The unaffable café, the CAFE!",
        "中文 the中",
        "a'b  \t the\n.ab $the$",
        "\x00the\u200d caf\u00e9e \ufffd",
        "x" * 101 + " " + "a" * 3,
        "",
    ],
)
def test_word_pieces_are_those_of_transformers(vocabulary, text):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer(str(vocabulary))
    ours = WordPiece(vocabulary)
    expected = theirs.convert_tokens_to_ids(theirs.tokenize(text))
    np.testing.assert_array_equal(ours(text.encode()), expected)
    assert (ours.first, ours.last) == ((theirs.cls_token_id,), (theirs.sep_token_id,))


def test_a_file_that_is_no_vocabulary(tmp_path):
    (tmp_path / "words.txt").write_text("the\ncat\n")
    with pytest.raises(ValueError, match=r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        WordPiece(tmp_path / "words.txt")
    with pytest.raises(ValueError, match="no vocabulary"):
        data.load("tfds:glue/sst2", vocabulary_file=str(tmp_path / "none"), stand_in=True)


@needs_real
def test_sentiment_of_glue(vocabulary):
    options = {"data_dir": REAL, "test_split": "validation", "length": 48}
    splits = data.load("tfds:glue/sst2", **options)
    assert splits.info.sizes == {"train": 5882, "validation": 1038, "test": 872}
    assert (splits.info.num_classes, splits.info.vocabulary) == (2, 259)
    row = splits.test[0]
    text = bytes(row["tokens"][1 : int(row["token_mask"].sum())].astype(np.uint8))
    assert text == b"it treats women like idiots"
    assert len(pickle.dumps(splits.test)) < 3000
    pieces = data.load("tfds:glue/sst2", **options, vocabulary_file=str(vocabulary))
    assert pieces.info.vocabulary == len(PIECES.split())


@needs_real
def test_shakespeare_has_a_validation_of_its_own():
    splits = data.load("tfds:tiny_shakespeare", data_dir=REAL, length=100)
    assert splits.info.sizes == {"train": 10038, "validation": 557, "test": 557}
    assert bytes(splits.train[0]["tokens"].astype(np.uint8)).startswith(b"First Citizen:\nBefore")


@pytest.mark.parametrize(("name", "classes"), [("glue/sst2", 2), ("tiny_shakespeare", 0)])
def test_stand_in_text_has_the_shapes(name, classes, tmp_path):
    splits = data.load(f"tfds:{name}", data_dir=tmp_path, stand_in=True, length=32)
    row = splits.train[1]
    assert row["tokens"].shape == (32,)
    assert ("label" in row) == ("token_mask" in row) == (classes > 0)
    assert splits.info.num_classes == classes
    assert "NOT the data set" in splits.info.provenance
