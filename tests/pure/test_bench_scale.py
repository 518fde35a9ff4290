"""The model of scale: multiplications that must stay so, and a page that says what its figures say."""

import json
from dataclasses import fields, replace

import pytest
from bench.scale import LOADS, PAGE, RESULTS, Costs, needs, tables, written

ONE = Costs(*[1e-6 for _ in fields(Costs)])


def test_the_page_says_what_the_figures_say() -> None:
    page = PAGE.read_text()
    assert written(page, tables(json.loads(RESULTS.read_text()))) == page


def test_each_table_has_its_place_in_the_page() -> None:
    page = PAGE.read_text()
    for name in tables(json.loads(RESULTS.read_text())):
        assert f"<!-- {name} -->" in page


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_whatever_costs_more_is_needed_more(load: object) -> None:
    before = needs(ONE, load)  # type: ignore[arg-type]
    for field in fields(Costs):
        if field.name == "job_node":  # a node's own machine
            continue
        dearer = replace(ONE, **{field.name: 1e3})
        assert needs(dearer, load) != before, field.name  # type: ignore[arg-type]
