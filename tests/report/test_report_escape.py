"""Text from outside is inert: for spreadsheets, markdown, terminals and build logs."""

import unicodedata

import pytest
from hypothesis import given
from report_rows import TEXT

from tomebench.report.escape import clean, csv_guard, csv_unguard, markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vit_base.tag_in1k", "vit_base.tag_in1k"),
        ("Δ ±2 %, größer", "Δ ±2 %, größer"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\ttab\r", "two\\nlines\\ttab\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("bad\udcffname", "bad\\udcffname"),
        ("::error::x", "'::error::x"),
        ("  ::error::x", "'  ::error::x"),
        ("x ##[set-env]y", "x ## [set-env]y"),
        ("runs/[r=8]/x", "runs/[r=8]/x"),
    ],
)
def test_clean(text, shown):
    assert clean(text) == shown


@given(TEXT)
def test_clean_is_one_visible_line_and_stays_as_it_is(text):
    shown = clean(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert clean(shown) == shown
    shown.encode()


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "＝1", "'=1"])
def test_formulas_are_guarded(text):
    assert csv_guard(text) == "'" + text


@given(TEXT)
def test_guard_and_unguard_are_a_pair(text):
    guarded = csv_guard(text)
    assert csv_unguard(guarded) == text
    assert not guarded.lstrip().startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b<script>", "a\\|b&lt;script&gt;"),
        ("vit_base_patch16", "vit_base_patch16"),
        ("_x_ *y* `z` ~~w~~", "\\_x\\_ \\*y\\* \\`z\\` \\~\\~w\\~\\~"),
        ("[x](javascript:y)", "[x\\](javascript:y)"),
        ("1.31x [1.29, 1.33] (12)", "1.31x [1.29, 1.33] (12)"),
        ("a\\|b & c", "a\\\\\\|b &amp; c"),
        ("a\nb", "a\\\\nb"),
        ("\x1b[31m", "\\\\x1b[31m"),
    ],
)
def test_markdown(text, escaped):
    assert markdown(text) == escaped
