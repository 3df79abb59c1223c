"""Database guards, declared beside the models they protect. Their messages begin with "hub:" (see problems.py)."""

from __future__ import annotations

import pgtrigger


def locked_rows_never_change(*, columns: tuple[str, ...], open_state: str = "draft") -> pgtrigger.Trigger:
    """Refuse deleting a row that left `open_state`, and changing any of `columns` of it."""
    changed = " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in columns)
    return pgtrigger.Trigger(
        name="locked_rows_never_change",
        when=pgtrigger.Before,
        operation=pgtrigger.Update | pgtrigger.Delete,
        func=f"""
            IF TG_OP = 'DELETE' THEN
                IF OLD.state <> '{open_state}' THEN
                    RAISE EXCEPTION 'hub: A locked version cannot be deleted. Make a new version instead.';
                END IF;
                RETURN OLD;
            END IF;
            IF OLD.state <> '{open_state}' AND ({changed} OR NEW.state = '{open_state}') THEN
                RAISE EXCEPTION 'hub: A locked version cannot be changed. Make a new version instead.';
            END IF;
            RETURN NEW;
        """,
    )


def never_changes(name: str = "rows_never_change") -> pgtrigger.Trigger:
    """Refuse every update and delete."""
    return pgtrigger.Trigger(
        name=name,
        when=pgtrigger.Before,
        operation=pgtrigger.Update | pgtrigger.Delete,
        func="RAISE EXCEPTION 'hub: This record is immutable. Make a new one instead.';",
    )
