"""Give the application's database role what it needs and no more. Run as the schema's owner after migrate."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from psycopg2 import sql

APPEND_ONLY = ("core_audit_event", "core_electronic_signature")
TRIGGER_ONLY = ("core_audit_head",)


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--role", default="hub_app")

    def handle(self, *args: Any, **options: Any) -> None:
        role = sql.Identifier(options["role"])
        with connection.cursor() as cursor, transaction.atomic():
            cursor.execute("SELECT current_user")
            if cursor.fetchone()[0] == options["role"]:
                raise CommandError(
                    "Run this as the schema's owner (HUB_DATABASE_URL of hub_owner), not as the app."
                )
            for statement in _statements():
                cursor.execute(sql.SQL(statement).format(role=role))
            cursor.execute(
                "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.proname LIKE 'pgtrigger_chain_audit_event%%'"
            )
            for (signature,) in cursor.fetchall():
                # The trigger writes the chain's head with its owner's rights: the app cannot.
                cursor.execute(f"ALTER FUNCTION {signature} SECURITY DEFINER SET search_path = public")
        self.stdout.write(f"{options['role']} may use the tables and owns nothing.")


def _statements() -> list[str]:
    everything = [
        "GRANT USAGE ON SCHEMA public TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
        "REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {role}",
    ]
    everything += [f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM {{role}}" for table in APPEND_ONLY]
    everything += [
        f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {table} FROM {{role}}" for table in TRIGGER_ONLY
    ]
    return everything
