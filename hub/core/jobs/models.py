"""Jobs: the truth about work under way. The queue only carries their ids."""

from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7


class JobState(models.TextChoices):
    QUEUED = "queued", "queued"
    RUNNING = "running", "running"
    SUCCEEDED = "succeeded", "succeeded"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


class Job(models.Model):
    """One piece of work: which, for what, how far, how often tried, and why it ended.

    `scope` and `subscope` say whose it is (a trial's and a site's id). `key` is unique among unfinished
    jobs of a kind, so that the same work is not queued twice.
    """

    State = JobState

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=80)
    queue = models.CharField(max_length=20)
    key = models.CharField(max_length=120)
    arguments = models.JSONField(default=dict)
    scope = models.UUIDField(null=True, db_index=True)
    subscope = models.UUIDField(null=True)
    requested_by = models.UUIDField(null=True)
    state = models.CharField(max_length=10, choices=JobState.choices, default=JobState.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    worker = models.CharField(max_length=120, blank=True)
    progress = models.FloatField(default=0.0)
    progress_text = models.CharField(max_length=300, blank=True)
    cancel_requested = models.BooleanField(default=False)
    reason = models.CharField(max_length=2000, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "core_job"
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "key"],
                condition=Q(state__in=["queued", "running"]),
                name="the_same_work_is_queued_only_once",
            )
        ]
        indexes = [
            models.Index(
                fields=["state", "heartbeat_at"],
                condition=Q(state__in=["queued", "running"]),
                name="job_unfinished",
            ),
            models.Index(fields=["-created_at"], name="job_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key} ({self.state})"

    @property
    def is_final(self) -> bool:
        return self.state in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
