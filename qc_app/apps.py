from django.apps import AppConfig


class QCAppConfig(AppConfig):
    name = "qc_app"
    label = "qc_app"
    verbose_name = "Protocol and image quality"

    def ready(self) -> None:
        from hub.core.jobs.sweepers import register_sweeper
        from qc_app import events, tasks
        from qc_app.services.deviation import expire_waivers
        from qc_app.services.trial_sections import register_sections
        from qc_app.views.navigation import COORDINATOR_ENTRIES, DASHBOARD_ENTRIES
        from sites_app.views.navigation import register_entries

        events.subscribe_all()
        register_sections()
        register_sweeper(tasks.sweep_unchecked_series)
        register_sweeper(expire_waivers)
        register_entries(*COORDINATOR_ENTRIES, *DASHBOARD_ENTRIES)
