"""What a worker process does when it starts."""

from __future__ import annotations

import gc

from celery.signals import worker_process_init

from hub.celery import set_loaded_modules_apart


def test_a_worker_process_sets_loaded_modules_apart() -> None:
    before = gc.get_freeze_count()
    try:
        set_loaded_modules_apart()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_a_starting_worker_process_is_told_to() -> None:
    receivers = [receiver() for _, receiver in worker_process_init.receivers]
    assert set_loaded_modules_apart in receivers
