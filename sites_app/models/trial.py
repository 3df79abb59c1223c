"""Trials, their arms and planned visits."""

import pgtrigger
from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager


class LockState(models.TextChoices):
    OPEN = "open", "open"
    FROZEN = "frozen", "frozen"
    LOCKED = "locked", "locked"


class Trial(models.Model):
    """A clinical trial. `lock_state` follows the data lock: frozen takes no new data, locked no change at all."""

    LockState = LockState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.SlugField(max_length=40, unique=True)
    title = models.CharField(max_length=300)
    lock_state = models.CharField(max_length=6, choices=LockState.choices, default=LockState.OPEN)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager(trial_path="id", site_path=None)

    class Meta:
        ordering = ["code"]
        constraints = [
            models.CheckConstraint(
                condition=Q(lock_state__in=LockState.values), name="a_trial_is_open_frozen_or_locked"
            )
        ]
        triggers = [
            pgtrigger.Trigger(
                name="locked_trials_never_change",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Delete,
                func="""
                    IF OLD.lock_state = 'locked' THEN
                        RAISE EXCEPTION 'hub: The data of this trial are locked. Nothing in it can be changed.';
                    END IF;
                    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                    RETURN NEW;
                """,
            )
        ]

    def __str__(self) -> str:
        return self.code

    @property
    def trial_id(self):  # type: ignore[no-untyped-def]
        """The trial is its own scope."""
        return self.pk


class Arm(models.Model):
    """A treatment arm. Blinded roles never see it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="arms")
    code = models.SlugField(max_length=40)
    title = models.CharField(max_length=200)

    objects = ScopedManager(site_path=None)

    class Meta:
        ordering = ["code"]
        constraints = [
            models.UniqueConstraint(fields=["trial", "code"], name="an_arm_code_is_unique_in_its_trial")
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.code


class VisitDefinition(models.Model):
    """A planned timepoint; days count from the subject's first visit, the window is inclusive."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="visit_definitions")
    code = models.SlugField(max_length=40)
    title = models.CharField(max_length=200)
    position = models.PositiveSmallIntegerField(default=0)
    target_day = models.IntegerField(default=0)
    window_before_days = models.PositiveSmallIntegerField(default=0)
    window_after_days = models.PositiveSmallIntegerField(default=0)

    objects = ScopedManager(site_path=None)

    class Meta:
        ordering = ["position", "target_day", "code"]
        constraints = [
            models.UniqueConstraint(fields=["trial", "code"], name="a_visit_code_is_unique_in_its_trial")
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.title
