"""Frames hold what rows hold, and table.csv holds what frames hold."""

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_rows import any_row, make_row, make_sweep

from tomebench.errors import StorageError
from tomebench.report.frames import read_csv, to_frame
from tomebench.report.tables import csv_text
from tomebench.runs.row import COLUMNS


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Equal in names, dtypes and every value, to the last bit; missing only equals missing."""
    assert left.dtypes.to_dict() == right.dtypes.to_dict()
    for name in left.columns:  # pandas' own assertion forgives a last bit in nullable columns
        assert [repr(value) for value in left[name]] == [repr(value) for value in right[name]]


@pytest.mark.parametrize(
    "change", [{"ties": 0}, {"top1": 0.0}, {"gmacs": 1.25 + 2**-51}, {"model": "other"}, {"warnings": ("NOISY",)}]
)
def test_assert_same_can_fail(change):
    with pytest.raises(AssertionError):
        assert_same(to_frame([make_row()]), to_frame([make_row(**change)]))


def test_make_row_refuses_a_field_that_rows_do_not_have():
    with pytest.raises(TypeError):
        make_row(8, speed=1.3)


def test_columns_and_dtypes_follow_the_schema():
    frame = to_frame(make_sweep())
    assert list(frame.columns) == [column.name for column in COLUMNS]
    expected = {"int": "Int64", "float": "Float64", "bool": "boolean"}
    assert [str(d) for d in frame.dtypes] == [expected.get(column.dtype, "string") for column in COLUMNS]
    assert to_frame([]).dtypes.equals(frame.dtypes)


def test_missing_stays_missing_and_zero_a_number():
    frame = to_frame([make_row(ties=0), make_row(8)])
    assert frame["ties"].isna().tolist() == [False, True]
    assert frame["ties"][0] == 0
    assert frame["img_per_s"].isna().all()


def test_lists_are_space_separated():
    row = to_frame([make_row(r_layers=(8, 8, 3), mean=(0.5, 0.25), warnings=("R_CLAMPED", "NOISY"))]).iloc[0]
    assert (row["r_layers"], row["mean"], row["warnings"]) == ("8 8 3", "0.5 0.25", "R_CLAMPED NOISY")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_float_that_is_not_finite_is_a_bug(value):
    with pytest.raises(ValueError, match=r"top1 is .* at r = 8"):
        to_frame([make_row(8, top1=value)])


@given(rows=st.lists(any_row(), max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_reads_back_the_same_frame(tmp_path, rows):
    path = tmp_path / "table.csv"
    path.write_text(csv_text(rows), encoding="utf-8", newline="")
    assert_same(read_csv(path), to_frame(rows))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: "", "columns of this version"),
        (lambda text: text.replace("gmacs", "flops", 1), "columns of this version"),
        (lambda text: text.replace("method,r,", "r,method,", 1), "their order"),
        (lambda text: text[:-40], "line 2 has"),
        (lambda text: text.replace("1.25", "many", 1), "line 2: gmacs cannot be 'many'"),
        (lambda text: text.replace("False", "no", 1), "clamped cannot be 'no'"),
        (lambda text: text + '"', "cannot read"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, change, reason):
    path = tmp_path / "table.csv"
    path.write_text(change(csv_text([make_row()])))
    with pytest.raises(StorageError, match=reason) as caught:
        read_csv(path)
    assert "\n" not in str(caught.value)
    assert "tomebench report" in str(caught.value)


def test_a_missing_table_and_one_of_bytes(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        read_csv(tmp_path / "table.csv")
    (tmp_path / "table.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match="cannot read"):
        read_csv(tmp_path / "table.csv")
