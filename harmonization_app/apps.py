from django.apps import AppConfig


class HarmonizationAppConfig(AppConfig):
    name = "harmonization_app"
    label = "harmonization_app"
    verbose_name = "Harmonization and data lock"
