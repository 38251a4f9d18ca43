"""HTML pages: nothing that comes from outside can become markup."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lucid.page import Html, element, page, picture, svg, table


def test_text_is_escaped_and_html_is_not() -> None:
    inner = element("b", "a < b")
    assert element("p", "1 & 2 ", inner, id='"x"') == (
        '<p id="&quot;x&quot;">1 &amp; 2 <b>a &lt; b</b></p>'
    )


def test_void_elements_are_not_closed() -> None:
    assert element("img", src="a", alt=None) == '<img src="a">'


@given(st.text(), st.text())
def test_no_text_becomes_markup(text: str, value: str) -> None:
    found = element("p", text, title=value)
    assert found.count("<") == found.count(">") == 2
    assert found.count('"') == 2


def test_names_of_bytes_that_are_no_text_can_be_written() -> None:
    name = b"\xff.png".decode("utf-8", "surrogateescape")
    assert "\\udcff.png" in page("t", element("p", name, title=name)).encode().decode()


def test_a_table_sets_its_last_columns_to_the_right() -> None:
    found = table(("name", "images"), [("a<b", "3")], numbers=1)
    assert "<td>a&lt;b</td>" in found
    assert '<td class="number">3</td>' in found
    assert "<th>name</th>" in found


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_picture_travels_inside_the_page(mode: str) -> None:
    found = picture(Image.new(mode, (6, 4), "white"), 'a "rose"')
    assert 'alt="a &quot;rose&quot;"' in found
    content = base64.b64decode(found.split("base64,")[1].split('"')[0])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (6, 4), mode)


def test_svg_goes_in_without_its_prologue() -> None:
    assert svg('<?xml version="1.0"?>\n<svg></svg>') == "<svg></svg>"


def test_a_page_is_whole() -> None:
    text = page("A & B", element("p", "x"), Html("<hr>"))
    assert text.startswith("<!doctype html>\n<html")
    assert "<title>A &amp; B</title>" in text
    assert "<h1>A &amp; B</h1><p>x</p><hr></body></html>" in text
