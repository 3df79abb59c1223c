"""The composition root as a Django app: every entry point loads the Celery application through it."""

from django.apps import AppConfig


class HubConfig(AppConfig):
    name = "hub"
    verbose_name = "Hub"

    def ready(self) -> None:
        from hub import celery  # noqa: F401  (the import makes it Celery's current application)
