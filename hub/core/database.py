"""What a database error says about the connection."""

from __future__ import annotations

import psycopg2
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db import Error as DatabaseFailure


def connection_lost(error: BaseException) -> bool:
    """Return whether an error says that the database cannot be reached, or came of a connection that broke.

    Whether the transaction under way was committed is then not known: what it refers to must not be removed.
    psycopg2 does not always notice a broken connection: libpq's message comes as a plain DatabaseError that
    carries no SQLSTATE, for it was not the server that said it.
    """
    if isinstance(error, (OperationalError, InterfaceError)):
        return True
    cause = error.__cause__
    if type(error) is DatabaseError and isinstance(cause, psycopg2.Error) and cause.pgcode is None:
        return True
    raw = connection.connection
    return isinstance(error, DatabaseFailure) and (raw is None or bool(raw.closed))
