"""Subjects by their code, and their visits."""

from django.db import models

from hub.core.ids import uuid7
from sites_app.models.guards import refused_when_trial_locked
from sites_app.models.scoping import ScopedManager
from sites_app.models.site import Site
from sites_app.models.trial import Arm, Trial, VisitDefinition


class Subject(models.Model):
    """A participant, known by the subject code alone.

    `patient_digest` is a keyed digest of the patient's identity in the first accepted images: later images
    of another patient are quarantined.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="subjects")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="subjects")
    code = models.CharField(max_length=60)
    arm = models.ForeignKey(Arm, on_delete=models.PROTECT, related_name="subjects", null=True, blank=True)
    patient_digest = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["code"]
        constraints = [
            models.UniqueConstraint(fields=["trial", "code"], name="a_subject_code_is_unique_in_its_trial")
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return self.code


class Visit(models.Model):
    """A subject's planned timepoint; `performed_on` is the (date-shifted) day of its first study."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="visits")
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="visits")
    subject = models.ForeignKey(Subject, on_delete=models.PROTECT, related_name="visits")
    definition = models.ForeignKey(VisitDefinition, on_delete=models.PROTECT, related_name="visits")
    performed_on = models.DateField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["subject__code", "definition__position"]
        constraints = [
            models.UniqueConstraint(fields=["subject", "definition"], name="a_subject_has_each_visit_once")
        ]
        triggers = [refused_when_trial_locked()]

    def __str__(self) -> str:
        return f"{self.subject} {self.definition}"
