"""Pages of this app."""

from __future__ import annotations

from django.urls import include, path

from harmonization_app.views import (
    algorithms,
    comparison,
    data_lock,
    exports,
    feature_sets,
    home,
    plans,
    run_steps,
    runs,
)

_feature_sets = [
    path("", feature_sets.feature_set_list, name="feature-sets"),
    path("new/", feature_sets.feature_set_new, name="feature-set-new"),
    path("from-metrics/", feature_sets.feature_set_from_metrics, name="feature-set-from-metrics"),
    path("<uuid:pk>/", feature_sets.feature_set_detail, name="feature-set"),
    path("<uuid:pk>/data/", feature_sets.feature_set_data, name="feature-set-data"),
    path("<uuid:pk>/features/", feature_sets.feature_set_features, name="feature-set-features"),
    path("<uuid:pk>/distribution/", feature_sets.feature_set_distribution, name="feature-set-distribution"),
]
_algorithms = [
    path("", algorithms.algorithm_list, name="algorithms"),
    path("<uuid:pk>/", algorithms.algorithm_detail, name="algorithm"),
    path("<uuid:pk>/verification/", algorithms.algorithm_verification, name="algorithm-verification"),
    path("<uuid:pk>/verify/", algorithms.algorithm_verify, name="algorithm-verify"),
    path("<uuid:pk>/lock/", algorithms.algorithm_lock, name="algorithm-lock"),
    path("<uuid:pk>/retire/", algorithms.algorithm_retire, name="algorithm-retire"),
]
_plans = [
    path("", plans.plan_list, name="plans"),
    path("new/", plans.plan_new, name="plan-new"),
    path("gate/", plans.plan_gate, name="plan-gate"),
    path("compare/", comparison.plan_compare, name="plan-compare"),
    path("compare/progress/", comparison.plan_compare_progress, name="plan-compare-progress"),
    path("<uuid:pk>/", plans.plan_detail, name="plan"),
    path("<uuid:pk>/edit/", plans.plan_edit, name="plan-edit"),
    path("<uuid:pk>/lock/", plans.plan_lock, name="plan-lock"),
    path("<uuid:pk>/amend/", plans.plan_amend, name="plan-amend"),
    path("<uuid:pk>/discard/", plans.plan_discard, name="plan-discard"),
]
_runs = [
    path("", runs.run_list, name="runs"),
    path("start/", runs.run_start, name="run-start"),
    path("<uuid:pk>/", runs.run_detail, name="run"),
    path("<uuid:pk>/progress/", runs.run_progress, name="run-progress"),
    path("<uuid:pk>/feature/", runs.run_feature, name="run-feature"),
    path("<uuid:pk>/covariate/", runs.run_covariate, name="run-covariate"),
    path("<uuid:pk>/data/", runs.run_data, name="run-data"),
    path("<uuid:pk>/model/", runs.run_model, name="run-model"),
    path("<uuid:pk>/report/", runs.run_report, name="run-report"),
    path("<uuid:pk>/rerun/", runs.run_rerun, name="run-rerun"),
    path("<uuid:pk>/cancel/", runs.run_cancel, name="run-cancel"),
    path("<uuid:pk>/apply/", run_steps.run_apply, name="run-apply"),
    path("<uuid:pk>/add-batch/", run_steps.run_add_batch, name="run-add-batch"),
    path("<uuid:pk>/export/", run_steps.run_export, name="run-export"),
]
_lock = [
    path("", data_lock.data_lock, name="data-lock"),
    path("freeze/", data_lock.freeze, name="data-lock-freeze"),
    path("unfreeze/", data_lock.unfreeze, name="data-lock-unfreeze"),
    path("sign/", data_lock.lock, name="data-lock-sign"),
    path("manifest/", data_lock.manifest, name="data-lock-manifest"),
    path("exports/", exports.export_list, name="exports"),
    path("exports/start/", exports.export_start, name="export-start"),
]

urlpatterns = [
    path("t/<slug:trial_code>/harmonization/", home.home, name="harmonization-home"),
    path("t/<slug:trial_code>/feature-sets/", include(_feature_sets)),
    path("algorithms/", include(_algorithms)),
    path("t/<slug:trial_code>/plans/", include(_plans)),
    path("t/<slug:trial_code>/runs/", include(_runs)),
    path("t/<slug:trial_code>/lock/", include(_lock)),
]
