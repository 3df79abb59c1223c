"""neuroCombat 0.2.12 behind our validation: right where it runs, refused where it is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.neurocombat import NeuroCombat
from harmonization_app.algorithms.specification import Covariate, FeaturePool, Specification
from harmonization_app.algorithms.verification import cross_check, max_difference_sd, verify
from harmonization_app.algorithms.verification.suite import make_input

SPECIFICATION = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))


@pytest.fixture
def dataset():
    return make_input({"A": 30, "B": 25, "C": 40}, seed=3)


def _codes(dataset, specification) -> list[str]:
    with pytest.raises(HarmonizationRefused) as refusal:
        NeuroCombat().harmonize(dataset, specification)
    return [finding.code for finding in refusal.value.findings if finding.severity == "stop"]


@pytest.mark.parametrize("change", [{}, {"eb": False}, {"mean_only": True}, {"covariates": ()}])
def test_agrees_with_our_kernel(dataset, change) -> None:
    specification = replace(SPECIFICATION, **change)

    published = NeuroCombat().harmonize(dataset, specification).values

    assert (
        max_difference_sd(published, Combat().harmonize(dataset, specification).values, dataset.values) < 5e-7
    )


@pytest.mark.reference
def test_published_cases_are_reproduced(reference_data) -> None:
    report = verify("neurocombat", reference_data / "harmonization")

    compared = {case.case.split("/")[1]: case for case in report.cases if not case.refused}
    for kind in ("a0_eb_nocov", "a_eb", "b_noeb", "c_meanonly", "c2_meanonly_noeb"):
        for data in ("ct68", "ct400", "real_enigma_example"):
            assert compared[f"{kind}__{data}"].max_difference_sd <= 5e-7
    assert report.passed


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"reference_batch": "A"}, "reference_batch_not_supported"),
        ({"parametric": False}, "nonparametric_not_supported"),
        (
            {"pools": (FeaturePool("all", tuple(f"region_{i:02d}" for i in range(12))),)},
            "pools_not_supported",
        ),
    ],
)
def test_what_the_package_gets_wrong_is_refused(dataset, change, code) -> None:
    assert _codes(dataset, replace(SPECIFICATION, **change)) == [code]


def test_missing_values_are_refused_by_row_and_column(dataset) -> None:
    values = dataset.values.copy()
    values[7, 2] = np.nan

    with pytest.raises(HarmonizationRefused, match="S007|region_02") as refusal:
        NeuroCombat().harmonize(dataset.with_values(values), SPECIFICATION)

    stop = refusal.value.findings[0]
    assert (stop.code, stop.rows, stop.columns) == ("missing_value", ("S007",), ("region_02",))


def test_covariate_that_32_bits_cannot_hold_is_refused(dataset) -> None:
    ages = tuple(738_000.5 + age / 100 for age in dataset.covariates["age"])
    precise = replace(dataset, covariates={**dataset.covariates, "age": ages})

    assert _codes(precise, SPECIFICATION) == ["covariate_precision"]


def test_badly_scaled_design_is_refused(dataset) -> None:
    ages = tuple(round(age) * 2.0**20 for age in dataset.covariates["age"])
    large = replace(dataset, covariates={**dataset.covariates, "age": ages})

    assert _codes(large, SPECIFICATION) == ["unscaled_condition"]


def test_new_scans_are_refused(dataset) -> None:
    model = NeuroCombat().fit(dataset, SPECIFICATION)

    with pytest.raises(HarmonizationRefused, match="0.9 SD"):
        NeuroCombat().apply(model, dataset)


def test_constant_feature_is_kept_out_of_the_priors(dataset) -> None:
    values = dataset.values.copy()
    values[:, 4] = 1.0

    result = NeuroCombat().harmonize(dataset.with_values(values), SPECIFICATION)

    ours = Combat().harmonize(dataset.with_values(values), SPECIFICATION)
    assert np.array_equal(result.values[:, 4], values[:, 4])
    assert max_difference_sd(result.values, ours.values, values) < 5e-7


def test_nothing_is_printed(dataset, capsys) -> None:
    NeuroCombat().harmonize(dataset, SPECIFICATION)

    assert capsys.readouterr().out == ""


def test_cross_check_counts_no_steps_where_the_package_reports_none(dataset) -> None:
    check = cross_check(dataset, NeuroCombat().harmonize(dataset, SPECIFICATION), NeuroCombat.tolerance_sd)

    assert check.passed
    assert check.iterations_equal is None
