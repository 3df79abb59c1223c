from django.apps import AppConfig


class SitesAppConfig(AppConfig):
    name = "sites_app"
    label = "sites_app"
    verbose_name = "Sites and images"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from hub.core.scopes import register_reach
        from sites_app.selectors.reach import reach_of
        from sites_app.services.trial_sections import register_sections

        register_reach(reach_of)
        register_sections()
