from django.apps import AppConfig


class HarmonizationAppConfig(AppConfig):
    name = "harmonization_app"
    label = "harmonization_app"
    verbose_name = "Harmonization and data lock"

    def ready(self) -> None:
        from harmonization_app import tasks  # noqa: F401  (declares the jobs)
        from harmonization_app.permissions import READERS
        from harmonization_app.services.plan import apply_plan_section
        from harmonization_app.services.sweeping import sweep_harmonization
        from hub.core.jobs.sweepers import register_sweeper
        from sites_app.services.trial_file import register_section
        from sites_app.views.navigation import Entry, register_entries, register_hub_entries

        register_sweeper(sweep_harmonization)
        register_section("harmonization_plan", apply_plan_section, order=30)
        register_entries(
            Entry("Harmonization", "chart", "harmonization-home", READERS, order=60),
            Entry("Data lock", "lock", "data-lock", READERS, order=70),
        )
        register_hub_entries(Entry("Algorithms", "gear", "algorithms", READERS, order=10))
