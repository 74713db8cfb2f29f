from dataclasses import fields

from tests.support.rows import COLUMNS
from trapline.decoding.decode import Facts
from trapline.results.schema import CROP_FIELDS, IMAGE_FIELDS


def test_every_column_is_described() -> None:
    assert all(field.metadata[b"description"] for field in [*COLUMNS.schema, *CROP_FIELDS])


def test_every_fact_is_a_column() -> None:
    assert {field.name for field in fields(Facts)} < {field.name for field in IMAGE_FIELDS}
