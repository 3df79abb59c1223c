from django.apps import AppConfig


class SitesAppConfig(AppConfig):
    name = "sites_app"
    label = "sites_app"
    verbose_name = "Sites and images"
    default_auto_field = "django.db.models.BigAutoField"
