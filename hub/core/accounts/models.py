"""People who log in. What they may do is said by memberships, not here."""

from django.contrib.auth.models import AbstractUser
from django.db import models

from hub.core.ids import uuid7


class User(AbstractUser):
    """A person or a program with an account. `is_superuser` marks the installation's administrator."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    full_name = models.CharField(max_length=200, blank=True)
    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]

    class Meta(AbstractUser.Meta):
        ordering = ["username"]

    def __str__(self) -> str:
        return self.full_name or self.username

    def get_full_name(self) -> str:
        return str(self)

    def get_short_name(self) -> str:
        return self.username
