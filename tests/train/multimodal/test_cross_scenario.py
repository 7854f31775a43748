"""The tables of scenarios: their rows, and the means that networks are judged by."""

import pytest

from soundpost.train.multimodal.cross_scenario import (
    ALL,
    Column,
    CrossScenario,
    cells_of,
    own_cells,
    scenario_figures,
    scenario_table,
)

NAMES = [f"{a}_{b}" for a in "123" for b in "123"] + ["all_all"]


def of(*values):
    return CrossScenario.of_names(dict(zip(NAMES, values, strict=True)))


# Table 3, HearNet.
G = of(0.6548, 0.4286, 0.1627, 0.4100, 0.3214, 0.1627, 0.3307, 0.2976, 0.5, 0.6966)
D = of(0.7857, 0.4325, 0.1825, 0.5542, 0.2619, 0.1825, 0.3770, 0.3056, 0.6190, 0.7009)


def test_cells_are_named_by_the_scenarios_of_training_and_test():
    assert G.accuracy["1", "2"] == 0.4286
    assert G.accuracy[ALL, ALL] == 0.6966
    cells = cells_of([Column("g", {0: G})])
    assert cells == [*((a, b) for a in "123" for b in "123"), (ALL, ALL)]
    ten = CrossScenario({("10", "2"): 0.1, ("2", "10"): 0.2, (ALL, ALL): 0.3, ("2", "2"): 0.4})
    assert cells_of([Column("g", {0: ten})]) == [("2", "2"), ("2", "10"), ("10", "2"), (ALL, ALL)]


def test_means_of_the_published_table():
    cells = list(G.accuracy)
    # (.4286 + .1627 + .4100 + .1627 + .3307 + .2976) / 6; (.6548 + .3214 + .5) / 3
    assert G.mean(own_cells(cells, crossed=True)) == pytest.approx(0.29872, abs=1e-5)
    assert D.mean(own_cells(cells, crossed=True)) == pytest.approx(0.33905, abs=1e-5)
    assert G.mean(own_cells(cells)) == pytest.approx(0.49207, abs=1e-5)


def test_the_table_has_the_published_rows_and_the_means():
    ours = of(0.7, 0.5, 0.5, 0.5, 0.7, 0.5, 0.5, 0.5, 0.7, 0.9)
    lines = scenario_table([Column("G", {0: ours}, G), Column("D", {0: D})]).splitlines()
    assert lines[0] == "| train set | test set | G | published | D |"
    assert lines[2] == "| 1 | 1 | 0.7000 | 0.6548 | 0.7857 |"
    assert lines[11] == "| all | all | 0.9000 | 0.6966 | 0.7009 |"
    assert lines[12] == "| mean | own scenario | 0.7000 | 0.4921 | 0.5555 |"
    assert lines[13] == "| mean | other scenarios | 0.5000 | 0.2987 | 0.3391 |"
    assert len({line.count("|") for line in lines}) == 1


def test_seeds_are_averaged_with_their_deviation():
    def seed(value):
        return CrossScenario({("1", "1"): value, ("1", "2"): value / 2})

    column = Column("net", {0: seed(0.2), 1: seed(0.4), 2: seed(0.6)})
    lines = scenario_table([column]).splitlines()
    # Deviations of .2, .4, .6 from .4: sqrt((.04 + 0 + .04) / 2)
    assert lines[2] == "| 1 | 1 | 0.4000 ± 0.2000 |"
    assert lines[5] == "| mean | other scenarios | 0.2000 ± 0.1000 |"
    figures = scenario_figures([column])["net"]["seeds"]
    assert figures["2"]["accuracy"] == {"1_1": 0.6, "1_2": 0.3}
    assert figures["2"]["means"] == {"own": 0.6, "others": 0.3}


def test_a_mean_is_over_the_cells_of_the_table_or_not_there():
    some = CrossScenario({("1", "1"): 0.5, ("1", "2"): 0.25})
    whole = CrossScenario({**some.accuracy, ("2", "2"): 0.5, ("2", "1"): 0.75})
    lines = scenario_table([Column("some", {0: some}, G), Column("whole", {0: whole})]).splitlines()
    assert lines[4] == "| 2 | 1 | – | 0.4100 | 0.7500 |"
    # The published mean is over the two cells that are here: (.4286 + .4100) / 2
    assert lines[7] == "| mean | other scenarios | – | 0.4193 | 0.5000 |"
