from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from face_encode.errors import EmbeddingFileError, InputError
from face_encode.gallery.quantization import Quantizer
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.pipeline.parquet import (
    embedding_table_of,
    embeddings_of,
    quantized,
    schema_of,
    table_of,
)
from tests.pipeline.drawn import faces

pyarrow = pytest.importorskip("pyarrow")

SETTINGS = EmbeddingSettings("one", "f1", 8, "eyes", raw=True)


PHOTOS = [faces("a.jpg", 2), faces("b.jpg", 0), faces("d.jpg", 1)]


def test_the_rows_of_photos_come_back_from_their_table() -> None:
    table = table_of(PHOTOS, SETTINGS, None)
    assert table.schema.equals(schema_of(SETTINGS, None), check_metadata=True)
    assert table["photo"].to_pylist() == ["a.jpg", "a.jpg", "b.jpg", "d.jpg"]
    assert table["face"].to_pylist() == [0, 1, None, 0]
    given = embedding_table_of(table, "a table")
    assert given.settings == SETTINGS
    assert given.left_out == (("b.jpg", "no face found"),)
    wanted = np.concatenate([each.embeddings for each in PHOTOS])
    np.testing.assert_array_equal(given.kept, wanted)
    np.testing.assert_array_equal(embeddings_of(table), wanted)


def test_lists_of_fixed_size_are_read_too() -> None:
    table = table_of([PHOTOS[0]], SETTINGS, None)
    fixed = table["embedding"].cast(pyarrow.list_(pyarrow.float32(), 8))
    index = table.schema.get_field_index("embedding")
    given = embedding_table_of(table.set_column(index, "embedding", fixed), "a table")
    np.testing.assert_array_equal(given.kept, PHOTOS[0].embeddings)


def test_embeddings_of_another_length_are_refused() -> None:
    table = table_of([PHOTOS[0]], SETTINGS, None)
    index = table.schema.get_field_index("embedding")
    short = pyarrow.array(
        [row[:7] for row in table["embedding"].to_pylist()], pyarrow.list_(pyarrow.float32())
    )
    with pytest.raises(InputError, match="8 numbers"):
        embedding_table_of(table.set_column(index, "embedding", short), "a table")


def test_embeddings_become_codes_afterwards() -> None:
    settings = replace(SETTINGS, raw=False)
    table = pyarrow.concat_tables(table_of([each], settings, None) for each in PHOTOS)
    int8 = replace(settings, int8=True)
    quantizer = Quantizer.fitted_to([embeddings_of(table)])
    codes = quantized(table, int8, quantizer)
    assert codes.equals(table_of(PHOTOS, int8, quantizer), check_metadata=True)
    assert embeddings_of(codes).dtype == np.int8


def test_another_table_is_refused_by_its_name() -> None:
    table = table_of(PHOTOS, SETTINGS, None)
    with pytest.raises(EmbeddingFileError, match="a table is no file of embeddings"):
        embedding_table_of(table.replace_schema_metadata(None), "a table")
    with pytest.raises(InputError, match="columns"):
        embedding_table_of(table.drop_columns(["score"]), "a table")
