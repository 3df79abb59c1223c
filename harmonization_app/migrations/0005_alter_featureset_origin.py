from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("harmonization_app", "0004_run_estimate")]

    operations = [
        migrations.AlterField(
            model_name="featureset",
            name="origin",
            field=models.CharField(
                choices=[
                    ("csv", "imported from CSV"),
                    ("qc_metrics", "built from QC metrics"),
                    ("matrix", "imported as a matrix"),
                ],
                max_length=12,
            ),
        ),
    ]
