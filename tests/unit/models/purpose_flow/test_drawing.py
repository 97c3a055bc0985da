"""A use as a picture: every origin in it, nothing styled in place, nothing run, and the rows behind it."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from models.purpose_flow.checking import Use
from models.purpose_flow.drawing import drawn, use_of
from models.purpose_flow.errors import FlowError
from tests.unit.models.purpose_flow.small_flow import PLANTED, SERVED, flow

SVG = "{http://www.w3.org/2000/svg}"
GEOMETRY = {"x", "y", "width", "height", "rx", "d", "viewBox"}
LOOK = {"fill", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray", "font-family", "font-size", "font-weight"}  # fmt: skip
MEANING = {"class", "role", "aria-labelledby", "id"}


def picture(use: Use = SERVED) -> ElementTree.Element:
    return ElementTree.fromstring(drawn(flow(), use).svg)  # noqa: S314 - our own


def test_every_column_that_data_comes_from_is_in_the_picture_and_in_the_rows() -> None:
    found = drawn(flow(), SERVED)
    assert {row.column for row in found.rows} == {
        "raw_loyalty__members.member_id", "raw_loyalty__members.birth_date", "raw_pos__sale_lines.cents",
    }  # fmt: skip
    texts = ["".join(each.itertext()) for each in picture().iter(f"{SVG}text")]
    for row in found.rows:
        assert f"{row.column.partition('.')[2]} · {row.category}" in texts
    assert {"raw_loyalty__members", "customers", "ftr_spend", "answer spend", "for service"} <= set(texts)
    assert (
        found.text
        == "3 columns of personal data (behaviour, birth_date, identifier) reach answer spend, for service, through 4 tables."
    )


def test_what_decides_is_drawn_otherwise_than_what_flows() -> None:
    lines = {each.get("class"): each for each in picture().iter(f"{SVG}path")}
    assert lines["flow-line flow-deciding"].get("stroke-dasharray")
    assert lines["flow-line flow-direct"].get("stroke-dasharray") is None
    assert {row.column: row.is_direct for row in drawn(flow(), SERVED).rows}["raw_loyalty__members.birth_date"] is False


def test_what_the_purpose_does_not_cover_is_said_in_words() -> None:
    texts = ["".join(each.itertext()) for each in picture(PLANTED).iter(f"{SVG}text")]
    assert "birth_date · birth_date · not covered" in texts
    assert {row.column for row in drawn(flow(), PLANTED).rows if not row.is_covered} == {"raw_loyalty__members.birth_date"}  # fmt: skip


def test_nothing_is_styled_in_place_run_or_fetched() -> None:
    for each in picture().iter():
        assert each.tag.removeprefix(SVG) in {"svg", "title", "desc", "g", "rect", "text", "path"}
        assert set(each.keys()) <= GEOMETRY | LOOK | MEANING, each.attrib
    assert not re.search(r"style=|<script|href|url\(|on[a-z]+=", drawn(flow(), SERVED).svg)
    root = picture()
    named = {each.get("id") for each in root.iter() if each.get("id")}
    assert set((root.get("aria-labelledby") or "").split()) <= named


def test_boxes_do_not_lie_on_each_other() -> None:
    boxes = [
        tuple(float(each.get(name) or 0) for name in ("x", "y", "width", "height"))
        for each in picture().iter(f"{SVG}rect")
    ]
    for number, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[:number]:
            assert x + width <= left or left + wide <= x or y + height <= top or top + high <= y


def test_a_use_that_nothing_personal_reaches_is_drawn_as_such() -> None:
    found = drawn(flow(), Use("answer", "items", None, (("raw_pos__sale_lines", "sku"),), "items.py"))
    assert found.text == "No personal data reaches answer items."
    assert found.rows == ()
    ElementTree.fromstring(found.svg)  # noqa: S314


def test_names_are_text_whatever_they_hold() -> None:
    odd = replace(SERVED, name='<b> & "quotes"')
    assert "".join(picture(odd).itertext()).count('<b> & "quotes"') >= 2


def test_a_use_is_found_by_title_or_by_a_name_that_is_its_own() -> None:
    other = Use("export", "spend", "service", SERVED.reads, "x.yml")
    assert use_of([SERVED, PLANTED], "spenders") is PLANTED
    assert use_of([SERVED, other], "export spend") is other
    with pytest.raises(FlowError, match="expected one of answer spend, export spend, found 'spend'"):
        use_of([SERVED, other], "spend")
    with pytest.raises(FlowError, match="expected one of answer spend, segment spenders, found 'nobody'"):
        use_of([SERVED, PLANTED], "nobody")
