from django.apps import AppConfig


class QCAppConfig(AppConfig):
    name = "qc_app"
    label = "qc_app"
    verbose_name = "Protocol and image quality"
