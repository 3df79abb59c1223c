"""Harmonization plans and runs."""

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models import Q

from harmonization_app.models.algorithm import AlgorithmVersion
from harmonization_app.models.feature_set import FeatureSet
from hub.core.guards import locked_rows_never_change
from hub.core.ids import uuid7
from hub.core.models import ElectronicSignature
from qc_app.models import VersionState
from sites_app.models import Trial
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager


class HarmonizationPlan(models.Model):
    """A pre-specified harmonization: method, batches, covariates, features, limits, seed.

    A plan belongs to a `name`; amending a locked one makes the next version of that name. `companions` are the
    code digests of the algorithms that a locked plan runs beside the main one, by identifier.
    """

    State = VersionState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="harmonization_plans")
    name = models.SlugField(max_length=80)
    version = models.PositiveIntegerField()
    title = models.CharField(max_length=300)
    algorithm_version = models.ForeignKey(
        AlgorithmVersion, on_delete=models.PROTECT, null=True, related_name="plans"
    )
    companions = models.JSONField(default=dict)
    document = models.JSONField()
    digest = models.CharField(max_length=64)
    state = models.CharField(max_length=10, choices=VersionState.choices, default=VersionState.DRAFT)
    amendment_reason = models.CharField(max_length=1000, blank=True)
    signature = models.ForeignKey(
        ElectronicSignature, on_delete=models.PROTECT, null=True, related_name="harmonization_plans"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    locked_at = models.DateTimeField(null=True)

    objects = ScopedManager(trial_wide=True, site_path=None)

    class Meta:
        ordering = ["name", "-version"]
        constraints = [
            models.UniqueConstraint(fields=["trial", "name", "version"], name="a_plan_version_is_unique"),
            models.UniqueConstraint(
                fields=["trial", "name"], condition=Q(state="locked"), name="one_plan_version_is_in_force"
            ),
            models.CheckConstraint(
                condition=Q(state="draft") | Q(signature__isnull=False, algorithm_version__isnull=False),
                name="a_locked_plan_is_signed_and_names_its_algorithm_version",
            ),
        ]
        triggers = [
            refused_when_trial_locked(),
            locked_rows_never_change(
                columns=(
                    "trial_id",
                    "name",
                    "version",
                    "title",
                    "algorithm_version_id",
                    "companions",
                    "document",
                    "digest",
                    "signature_id",
                    "locked_at",
                )
            ),
            pgtrigger.Trigger(
                name="plans_are_locked_once_by_their_signature",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.Update,
                func="""
                    IF TG_OP = 'UPDATE' AND OLD.state <> 'draft' AND (OLD.state, NEW.state) NOT IN (
                        ('locked', 'locked'), ('locked', 'superseded'), ('superseded', 'superseded')) THEN
                        RAISE EXCEPTION 'hub: A superseded plan is not in force again. Make a new version instead.';
                    END IF;
                    IF TG_OP = 'UPDATE' AND NEW.amendment_reason <> OLD.amendment_reason THEN
                        RAISE EXCEPTION 'hub: The reason of an amendment cannot be changed.';
                    END IF;
                    IF NEW.state = 'superseded' AND (TG_OP = 'INSERT' OR OLD.state = 'draft') THEN
                        RAISE EXCEPTION 'hub: Only a plan that was in force is superseded.';
                    END IF;
                    IF NEW.state = 'locked' AND (TG_OP = 'INSERT' OR OLD.state = 'draft') AND NOT EXISTS (
                        SELECT 1 FROM core_electronic_signature signed, harmonization_app_algorithmversion used
                        WHERE signed.id = NEW.signature_id AND signed.object_id = NEW.id::text
                            AND signed.object_digest = NEW.digest
                            AND used.id = NEW.algorithm_version_id AND used.state = 'locked') THEN
                        RAISE EXCEPTION
                            'hub: A plan is locked by a signature over it, on a locked algorithm version.';
                    END IF;
                    RETURN NEW;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.title} v{self.version}"


class RunState(models.TextChoices):
    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    REFUSED = "refused", "refused by the gate"
    SUCCEEDED = "succeeded", "succeeded"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


# A run begins again where its worker died.
RUN_TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"running", "refused", "succeeded", "failed", "cancelled"}),
    "refused": frozenset(),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


class HarmonizationRun(models.Model):
    """One run: primary under a locked plan before data lock, exploratory otherwise; never changed once final.

    `specification` is the plan's document as it ran. Outputs are blobs: data, model, diagnostics, report.
    `estimate` states its memory before it starts; `row_decisions` says which rows it left out or relabelled because
    of their images or scanners, and a rerun takes them from there.
    A run of mode `apply` uses the model of `model_of` unchanged; one of mode `add_batch` adds `added_batch` to it.
    """

    State = RunState

    class Kind(models.TextChoices):
        PRIMARY = "primary", "primary"
        EXPLORATORY = "exploratory", "exploratory"

    class Mode(models.TextChoices):
        FIT = "fit", "model estimated"
        APPLY = "apply", "frozen model applied"
        ADD_BATCH = "add_batch", "batch added to a frozen model"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="harmonization_runs")
    plan = models.ForeignKey(HarmonizationPlan, on_delete=models.PROTECT, null=True, related_name="runs")
    plan_digest = models.CharField(max_length=64, blank=True)
    algorithm_version = models.ForeignKey(AlgorithmVersion, on_delete=models.PROTECT, related_name="runs")
    feature_set = models.ForeignKey(FeatureSet, on_delete=models.PROTECT, related_name="runs")
    specification = models.JSONField()
    kind = models.CharField(max_length=12, choices=Kind.choices)
    exploratory_reason = models.CharField(max_length=300, blank=True)
    state = models.CharField(max_length=10, choices=RunState.choices, default=RunState.QUEUED)
    reason = models.CharField(max_length=2000, blank=True)
    job_id = models.UUIDField(null=True)
    rerun_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="reruns")
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.FIT)
    model_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="applications")
    added_batch = models.CharField(max_length=200, blank=True)
    step_reason = models.CharField(max_length=1000, blank=True)
    estimate = models.JSONField(default=dict)
    row_decisions = models.JSONField(default=dict)
    gate = models.JSONField(default=list)
    summary = models.JSONField(default=dict)
    environment = models.JSONField(default=dict)
    input_digest = models.CharField(max_length=64, blank=True)
    data_digest = models.CharField(max_length=64, blank=True)
    model_digest = models.CharField(max_length=64, blank=True)
    diagnostics_digest = models.CharField(max_length=64, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="harmonization_runs"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = ScopedManager(trial_wide=True, site_path=None)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(kind="primary") | Q(plan__isnull=False), name="a_primary_run_has_a_plan"
            ),
            models.CheckConstraint(
                condition=Q(mode="fit", model_of__isnull=True, added_batch="")
                | Q(mode="apply", model_of__isnull=False, added_batch="")
                | Q(mode="add_batch", model_of__isnull=False) & ~Q(added_batch="") & ~Q(step_reason=""),
                name="a_run_with_a_frozen_model_names_it",
            ),
            models.UniqueConstraint(
                fields=["plan", "feature_set", "mode", "model_of", "rerun_of", "added_batch"],
                condition=Q(kind="primary", state__in=["queued", "running"]),
                nulls_distinct=False,
                name="the_same_primary_run_is_under_way_only_once",
            ),
        ]
        triggers = [
            pgtrigger.Trigger(
                name="primary_runs_come_before_data_lock",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.Update,
                func="""
                    IF NEW.kind = 'primary' AND EXISTS (
                        SELECT 1 FROM sites_app_trial WHERE id = NEW.trial_id AND lock_state = 'locked') THEN
                        RAISE EXCEPTION 'hub: The data of this trial are locked: a run now is exploratory.';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="a_primary_run_stands_on_the_plan_in_force",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="""
                    IF NEW.kind = 'primary' AND NOT EXISTS (
                        SELECT 1 FROM harmonization_app_harmonizationplan plan
                        JOIN harmonization_app_algorithmversion used ON used.id = plan.algorithm_version_id
                        WHERE plan.id = NEW.plan_id AND plan.state = 'locked' AND plan.digest = NEW.plan_digest
                            AND plan.document = NEW.specification
                            AND used.id = NEW.algorithm_version_id AND used.state = 'locked') THEN
                        RAISE EXCEPTION 'hub: A primary run needs the plan in force, as it was locked.';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="a_run_stays_within_its_trial",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="""
                    IF EXISTS (
                        SELECT 1 FROM harmonization_app_featureset
                        WHERE id = NEW.feature_set_id AND trial_id <> NEW.trial_id
                        UNION ALL SELECT 1 FROM harmonization_app_harmonizationplan
                        WHERE id = NEW.plan_id AND trial_id <> NEW.trial_id
                        UNION ALL SELECT 1 FROM harmonization_app_harmonizationrun
                        WHERE id IN (NEW.model_of_id, NEW.rerun_of_id) AND trial_id <> NEW.trial_id) THEN
                        RAISE EXCEPTION
                            'hub: The plan, the features and the model of a run belong to the trial of the run.';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="what_a_run_was_asked_never_changes",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                func="""
                    IF ROW(NEW.trial_id, NEW.plan_id, NEW.plan_digest, NEW.algorithm_version_id,
                           NEW.feature_set_id, NEW.specification, NEW.rerun_of_id, NEW.mode, NEW.model_of_id,
                           NEW.added_batch, NEW.step_reason, NEW.created_by_id, NEW.created_at)
                       IS DISTINCT FROM
                       ROW(OLD.trial_id, OLD.plan_id, OLD.plan_digest, OLD.algorithm_version_id,
                           OLD.feature_set_id, OLD.specification, OLD.rerun_of_id, OLD.mode, OLD.model_of_id,
                           OLD.added_batch, OLD.step_reason, OLD.created_by_id, OLD.created_at)
                       OR OLD.kind = 'exploratory' AND ROW(NEW.kind, NEW.exploratory_reason)
                           IS DISTINCT FROM ROW(OLD.kind, OLD.exploratory_reason) THEN
                        RAISE EXCEPTION
                            'hub: What a run was asked to do cannot be changed. Start another run instead.';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="final_runs_never_change",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func="""
                    IF OLD.state IN ('refused', 'succeeded', 'failed', 'cancelled') OR TG_OP = 'DELETE' THEN
                        RAISE EXCEPTION 'hub: A finished run is immutable. Make a new run instead.';
                    END IF;
                    RETURN NEW;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} run {self.created_at:%Y-%m-%d %H:%M}" if self.created_at else f"{self.kind} run"

    @property
    def is_final(self) -> bool:
        return not RUN_TRANSITIONS[self.state]
