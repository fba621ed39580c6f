from __future__ import annotations

import pytest

from alula_exporters.figures import compared, missed_costs


def test_costs_near_the_request_need_no_sentence():
    near = {"flops_requested": 2.0, "flops_achieved": 2.19, "nnz_requested": 10, "nnz_mean": 9.1}
    assert list(missed_costs(near)) == []
    assert list(missed_costs({"flops_achieved": 2.0, "nnz_mean": 3.0})) == []  # nothing was asked for


def test_a_sentence_for_each_cost_that_was_missed():
    over, under = missed_costs({"flops_requested": 2.0, "flops_achieved": 3.0, "nnz_requested": 10, "nnz_mean": 5.0})
    assert over == "FLOPs are 3, +50% off the 2 that were asked for; train for more steps."
    assert under.startswith("Mean non-zeros are 5, -50% off the 10 that were asked for; ")


def test_a_table_marks_what_was_missed():
    assert compared(2.1, 2.0) == "asked for 2: +5.0%"
    assert compared(1.5, 2.0) == "asked for 2: -25.0%, missed"


@pytest.mark.parametrize("strange", ["2", None, float("nan"), float("inf"), True, 0, -1.0, [2.0]])
def test_figures_of_a_strangers_file_that_are_no_cost_are_left_out(strange):
    assert list(missed_costs({"flops_requested": strange, "flops_achieved": 9.0})) == []
