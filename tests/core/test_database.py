"""Which errors say that the database was lost, whatever class psycopg2 gives them."""

from __future__ import annotations

import psycopg2
import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connection

from hub.core.database import connection_lost

pytestmark = pytest.mark.django_db


class SaidByTheServer(psycopg2.DatabaseError):
    """An error with a SQLSTATE; psycopg2 lets nobody set that of a real one."""

    pgcode = "57014"


def caused_by(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("could not connect"),
        InterfaceError("connection already closed"),
        caused_by(DatabaseError("server closed the connection unexpectedly"), psycopg2.DatabaseError()),
    ],
)
def test_a_lost_connection(error):
    assert connection_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("not of the database"),
        caused_by(DatabaseError("canceling statement"), SaidByTheServer()),
        caused_by(ProgrammingError("no results to fetch"), psycopg2.ProgrammingError()),
    ],
)
def test_another_error(error):
    connection.ensure_connection()
    assert not connection_lost(error)
