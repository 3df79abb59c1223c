"""Roles are rows: a user, a trial, perhaps one site, and a role."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from hub.core.ids import uuid7
from sites_app.models.scoping import ScopedManager
from sites_app.models.site import Site
from sites_app.models.trial import Trial


class Role(models.TextChoices):
    SITE_COORDINATOR = "site_coordinator", "site coordinator"
    MONITOR = "monitor", "monitor"
    DATA_MANAGER = "data_manager", "CRO data manager"
    IMAGING_REVIEWER = "imaging_reviewer", "imaging reviewer"
    SPONSOR = "sponsor", "sponsor"
    STATISTICIAN = "statistician", "statistician"
    TRIAL_ADMINISTRATOR = "trial_administrator", "trial administrator"
    AUDITOR = "auditor", "auditor"


class Membership(models.Model):
    """What a user is in a trial. Without a site it covers all sites; a coordinator always has one."""

    Role = Role

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="memberships")
    trial = models.ForeignKey(Trial, on_delete=models.PROTECT, related_name="memberships")
    site = models.ForeignKey(
        Site, on_delete=models.PROTECT, related_name="memberships", null=True, blank=True
    )
    role = models.CharField(max_length=24, choices=Role.choices)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ScopedManager()

    class Meta:
        ordering = ["user__username"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "trial", "site", "role"],
                nulls_distinct=False,
                name="a_membership_is_given_once",
            ),
            models.CheckConstraint(
                condition=~Q(role="site_coordinator") | Q(site__isnull=False),
                name="a_site_coordinator_belongs_to_a_site",
            ),
            models.CheckConstraint(
                condition=Q(role__in=["site_coordinator", "monitor", "data_manager", "imaging_reviewer"])
                | Q(site__isnull=True),
                name="only_site_roles_are_limited_to_a_site",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} {self.role} {self.site or 'all sites'}"
