"""Database guards of trial-scoped tables. Each table has its own `trial_id` column."""

import pgtrigger

_LOCKED = "hub: The data of this trial are locked. Nothing in it can be changed."
_FROZEN = "hub: This trial is frozen for data lock. It takes no new data."


def refused_when_trial_locked(column: str = "trial_id") -> pgtrigger.Trigger:
    """Refuse insert, update and delete once the trial is locked."""
    return pgtrigger.Trigger(
        name="refused_when_trial_locked",
        when=pgtrigger.Before,
        operation=pgtrigger.Insert | pgtrigger.Update | pgtrigger.Delete,
        func=f"""
            IF TG_OP <> 'INSERT' AND EXISTS (
                SELECT 1 FROM sites_app_trial WHERE id = OLD.{column} AND lock_state = 'locked') THEN
                RAISE EXCEPTION '{_LOCKED}';
            END IF;
            IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
            IF EXISTS (SELECT 1 FROM sites_app_trial WHERE id = NEW.{column} AND lock_state = 'locked') THEN
                RAISE EXCEPTION '{_LOCKED}';
            END IF;
            RETURN NEW;
        """,
    )


def refused_when_trial_frozen() -> pgtrigger.Trigger:
    """Refuse new rows once the trial is frozen or locked."""
    return pgtrigger.Trigger(
        name="refused_when_trial_frozen",
        when=pgtrigger.Before,
        operation=pgtrigger.Insert,
        func=f"""
            IF EXISTS (SELECT 1 FROM sites_app_trial WHERE id = NEW.trial_id AND lock_state <> 'open') THEN
                RAISE EXCEPTION '{_FROZEN}';
            END IF;
            RETURN NEW;
        """,
    )
