from django.apps import AppConfig


class QCAppConfig(AppConfig):
    name = "qc_app"
    label = "qc_app"
    verbose_name = "Protocol and image quality"

    def ready(self) -> None:
        from hub.core.jobs.sweepers import register_sweeper
        from qc_app import events, tasks

        events.subscribe_all()
        register_sweeper(tasks.sweep_unchecked_series)
