"""Make the installation's first administrator, `admin`, unless there is one; print a generated password once."""

import os
import secrets
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from hub.core.audit.services import record
from hub.core.models import User


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        if User.objects.filter(is_superuser=True).exists():
            return
        given = os.environ.get("HUB_ADMIN_PASSWORD", "")
        password = given or secrets.token_urlsafe(15)
        with transaction.atomic():
            admin = User.objects.create_superuser("admin", "", password, full_name="Administrator")
            record(actor=None, action="user.created", obj=admin, new={"username": "admin", "superuser": True})
        if not given:
            self.stdout.write(
                f"administrator: admin / {password}  (shown once; change it after the first login)"
            )
