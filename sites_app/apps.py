from django.apps import AppConfig


class SitesAppConfig(AppConfig):
    name = "sites_app"
    label = "sites_app"
    verbose_name = "Sites and images"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from hub.core.jobs.sweepers import register_sweeper
        from hub.core.scopes import register_reach
        from sites_app import tasks  # noqa: F401
        from sites_app.ingest.sweeping import sweep_receiving
        from sites_app.selectors.reach import reach_of
        from sites_app.services.trial_sections import register_sections
        from sites_app.views.navigation import SITE_ENTRIES, register_entries
        from sites_app.views.people import PEOPLE_ENTRY

        register_reach(reach_of)
        register_sections()
        register_sweeper(sweep_receiving)
        register_entries(*SITE_ENTRIES, PEOPLE_ENTRY)
