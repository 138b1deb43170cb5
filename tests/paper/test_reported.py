"""The reported numbers: every row is read as it stands in the file, and a stranger can look at them."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from tomebench.paper.reported import FILES, Reported, reported_rows, reported_tables


def test_every_row_of_the_files_is_read() -> None:
    raw = []
    for file in FILES:
        text = resources.files("tomebench.paper").joinpath(file).read_text(encoding="utf-8")
        raw += list(csv.DictReader(text.splitlines()))
    assert len(raw) == len(reported_rows()) == 108 + 7
    for fields, row in zip(raw, reported_rows(), strict=True):
        assert isinstance(row, Reported)
        assert (row.table, row.model, row.source) == (fields["table"], fields["model"], fields["source"])
        for name in ("r", "acc", "im_s", "gflops"):
            value = getattr(row, name)
            assert (value is None) == (fields[name] == ""), name
            assert value is None or value == float(fields[name])
        assert row.confidence in ("exact", "secondhand")
        assert row.kind in ("reported", "remeasured")
        assert row.source


def test_what_others_measured_is_never_mixed_with_what_the_authors_report() -> None:
    for name, rows in reported_tables().items():
        assert len({row.kind for row in rows}) == 1, name
        assert name.startswith("third_party") == (rows[0].kind == "remeasured")


@pytest.mark.parametrize(
    ("table", "model", "r", "acc", "im_s"),
    [
        ("readme_augreg_off_the_shelf", "ViT-B/16", 13, 82.6, 511.0),
        ("table1a_feature", "ViT-L/16", 8, 83.02, 186.8),
        ("video_kinetics400", "ViT-L", 65, 84.5, 16.3),
    ],
)
def test_rows_by_hand(table: str, model: str, r: int, acc: float, im_s: float) -> None:
    assert any((row.model, row.r, row.acc, row.im_s) == (model, r, acc, im_s) for row in reported_tables()[table])
