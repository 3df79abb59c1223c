"""The Celery application. Tasks are jobs (`hub.core.jobs`); results live in our tables."""

import gc
import os

from celery import Celery
from celery.signals import worker_process_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hub.settings.development")

app = Celery("hub")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["hub.core.jobs"], related_name="celery_tasks")


@worker_process_init.connect
def limit_numerical_threads(**_: object) -> None:
    """One BLAS thread per task: more made ComBat four times slower and its bits irreproducible."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1)


@worker_process_init.connect
def set_loaded_modules_apart(**_: object) -> None:
    """Let the garbage collector leave alone what is loaded for good.

    A series' headers set off full collections, and each went through every object of the loaded modules:
    two thirds of the time of reading them.
    """
    gc.collect()
    gc.freeze()
