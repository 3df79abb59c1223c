"""Adding a batch: published results, the others untouched, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harmonization_app.algorithms.add_batch import add_batch
from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.reference import reference_cases
from harmonization_app.algorithms.verification.suite import make_input

PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))


@pytest.fixture
def dataset():
    return make_input({"A": 40, "B": 40, "C": 30}, seed=3)


def _parts(dataset):
    new = np.array(dataset.batches) == "C"
    return dataset.select(np.flatnonzero(~new)), dataset.select(np.flatnonzero(new))


@pytest.mark.reference
def test_published_new_sites_are_reproduced(reference_data) -> None:
    folder = reference_data / "harmonization"
    cases = [case for case in reference_cases(folder) if case.kind == "k"]
    assert len(cases) == 3
    for case in cases:
        published = pd.read_csv(folder / f"cases/{case.name}/expected_apply_new_site.csv.gz").set_index(
            "subject"
        )
        rows = [case.dataset.rows.index(str(subject)) for subject in published.index]
        model = Combat().fit(case.dataset.select(case.train), case.specification)

        new = case.dataset.select(rows)
        values = Combat().apply(add_batch(model, new), new).values

        expected = published[list(case.dataset.features)].to_numpy(np.float64)
        difference = np.abs(values - expected) / case.dataset.values.std(axis=0)
        assert difference.max() < 1e-11


@pytest.mark.parametrize("change", [{}, {"eb": False}, {"mean_only": True}, {"parametric": False}])
def test_other_batches_are_left_alone(dataset, change) -> None:
    known, new = _parts(dataset)
    model = Combat().fit(known, replace(PLAN, **change))

    extended = load_model(save_model(add_batch(model, new)))

    before, after = Combat().apply(model, known).values, Combat().apply(extended, known).values
    assert np.array_equal(before, after)
    assert extended.batches == ("A", "B", "C")
    assert extended.facts["added_batches"][0]["scans"] == 30


def test_added_batch_is_close_to_one_fitted_with_the_others(dataset) -> None:
    known, new = _parts(dataset)

    added = Combat().apply(add_batch(Combat().fit(known, PLAN), new), new).values
    together = Combat().harmonize(dataset, PLAN).values[np.array(dataset.batches) == "C"]

    assert max_difference_sd(new.values, together, dataset.values) > 0.5
    assert np.abs((added - added.mean(axis=0)) - (together - together.mean(axis=0))).max() < 0.15
    assert np.abs(added.mean(axis=0) - Combat().harmonize(known, PLAN).values.mean(axis=0)).max() < 0.1


def test_faulty_additions_are_refused(dataset) -> None:
    known, new = _parts(dataset)
    model = Combat().fit(known, PLAN)
    holed = new.values.copy()
    holed[0, 0] = np.nan
    for scans, message in (
        (known, "one batch that the model does not know"),
        (new.select(range(3)), "has 3 scans; the plan asks for 5"),
        (new.with_values(holed), "missing"),
        (new.with_values(np.full_like(new.values, 2.0)), "one value in all scans"),
    ):
        with pytest.raises(HarmonizationRefused, match=message):
            add_batch(model, scans)
    with pytest.raises(HarmonizationRefused, match="without a reference batch"):
        add_batch(Combat().fit(known, replace(PLAN, reference_batch="A")), new)
