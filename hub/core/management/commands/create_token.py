"""Print a new API token of a user."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from knox.models import AuthToken

from hub.core.audit.services import record
from hub.core.models import User


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user {options['username']}.")
        with transaction.atomic():
            _, token = AuthToken.objects.create(user)
            record(actor=None, action="token.created", obj=user)
        self.stdout.write(token)
