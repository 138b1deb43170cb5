"""The figure is made, is the same each time, and never trips over names."""

import dataclasses
import sys

import pytest
from report_rows import accuracy, make_row, make_sweep, speed, with_ceiling

from tomebench.report import figures
from tomebench.report.figures import speed_accuracy_figure

PNG = b"\x89PNG\r\n\x1a\n"


def words(rows, conditions=()):
    """Every text that the figure of ``rows`` shows."""
    shown, with_accuracy = figures._shown(rows)
    figure = figures._draw(rows, shown, with_accuracy, conditions)
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def without_accuracy(rows):
    names = ("top1", "delta_top1", "delta_top1_lo", "delta_top1_hi", "n_seen", "dataset")
    return [dataclasses.replace(row, **dict.fromkeys(names)) for row in rows]


def test_words_fails_when_a_row_is_not_drawn():
    assert "r=99" not in words(make_sweep())


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        assert speed_accuracy_figure(make_sweep(), tmp_path / name, ["device: cpu"]) is None
    first = (tmp_path / "a.png").read_bytes()
    assert first.startswith(PNG)
    assert first == (tmp_path / "b.png").read_bytes()
    assert b"tEXt" not in first  # neither a date nor a version
    assert int.from_bytes(first[16:20], "big") == 1200


def test_the_accuracy_figure_says_what_it_shows():
    found = words(make_sweep(), ["device: cpu, fp32"])
    for text in (
        "r=0",
        "r=8",
        "speed-up over r = 0",
        "top-1 accuracy (%)",
        "r lowered by the cap",
        "device: cpu, fp32",
    ):
        assert text in found
    assert "Token merging: vit_tiny.tag" in found


@pytest.mark.parametrize(("max_drop", "bold"), [(1.0, []), (5.0, ["r=8"])])
def test_bold_is_what_is_recommended(max_drop, bold):
    shown, with_accuracy = figures._shown(make_sweep())
    figure = figures._draw(make_sweep(), shown, with_accuracy, (), max_drop)
    texts = figure.findobj(lambda artist: hasattr(artist, "get_fontweight"))
    assert [text.get_text() for text in texts if text.get_fontweight() == "bold"] == bold


def test_the_ceiling_is_a_line_where_it_was_timed(tmp_path):
    label = "slicing ceiling: what the hardware gives"
    for rows in (with_ceiling(), without_accuracy(with_ceiling())):
        assert label in words(rows)
        shown, with_accuracy = figures._shown(rows)
        (axes,) = figures._draw(rows, shown, with_accuracy, ()).axes
        drawn = [line for line in axes.lines if line.get_linestyle() == "-." and len(line.get_xdata())]
        (ceiling,) = drawn
        values = ceiling.get_xdata() if with_accuracy else ceiling.get_ydata()
        assert list(values) == [row.speedup_ceiling for row in rows if row.r > 0]
    assert label not in words(make_sweep())


@pytest.mark.parametrize("cut", [list, without_accuracy])
def test_many_rows_are_drawn_with_as_many_lines_as_few(cut):
    """The time that matplotlib takes grows with the lines: one for each row would make hundreds of rows slow."""

    def lines(rows):
        shown, with_accuracy = figures._shown(cut(rows))
        return len(figures._draw(cut(rows), shown, with_accuracy, ()).axes[0].lines)

    few = make_sweep()
    assert lines([*few, *(dataclasses.replace(few[1], r=r) for r in range(20, 60))]) == lines(few)


def test_without_accuracy_r_is_the_axis():
    found = words(without_accuracy(make_sweep()))
    assert "r, tokens merged per layer" in found
    assert "top-1 accuracy (%)" not in found


def test_rows_left_out_are_named():
    rows = make_sweep()
    rows[1] = dataclasses.replace(rows[1], status="oom")
    rows[2] = dataclasses.replace(rows[2], top1=None)
    found = words(rows)
    assert "left out: r = 4, 8 (oom, not measured)" in found
    assert "r=4" not in found


def test_biased_timing_is_said():
    rows = [dataclasses.replace(row, warnings=("AA_FAILED",)) for row in make_sweep()]
    assert any("do not use these speeds" in text for text in words(rows))


def test_series_get_a_legend_each():
    rows = make_sweep()
    found = words(rows + [dataclasses.replace(row, dtype="bf16") for row in rows])
    assert {" fp32", " bf16"} <= set(found)


@pytest.mark.parametrize("name", ["$x^{$", "_hidden", "漢字", "\x1b[31m", "a|b<script>", "m" * 300])
def test_names_are_drawn_as_text(tmp_path, name):
    rows = [dataclasses.replace(row, model=name, schedule=f"{name}{row.r}") for row in make_sweep()]
    assert speed_accuracy_figure(rows, tmp_path / "f.png", [name, "y" * 500]) is None
    assert len(words(rows)) - len(words(make_sweep())) >= len(rows) - 1  # no series has lost its legend


def test_few_rounds_draw_no_bars(tmp_path):
    rows = [make_row(**speed(1.0, None)), make_row(8, **speed(1.3, None))]
    assert speed_accuracy_figure(rows, tmp_path / "f.png") is None
    assert "no bar: fewer than 6 rounds give no interval" in words(rows)


def test_reasons_for_no_figure(tmp_path, monkeypatch):
    path = tmp_path / "f.png"
    assert "no row has a speed-up" in (speed_accuracy_figure([make_row(8, **accuracy(250))], path) or "")
    assert "no row has a speed-up" in (speed_accuracy_figure([], path) or "")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'tomebench[report]'" in (speed_accuracy_figure(make_sweep(), path) or "")
    assert not path.exists()


def test_pyplot_is_never_loaded(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    speed_accuracy_figure(make_sweep(), tmp_path / "f.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded
