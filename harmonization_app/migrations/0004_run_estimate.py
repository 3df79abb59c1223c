from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("harmonization_app", "0003_algorithm_second_signature")]

    operations = [
        migrations.AddField(
            model_name="harmonizationrun", name="estimate", field=models.JSONField(default=dict)
        ),
        migrations.AddField(
            model_name="harmonizationrun", name="row_decisions", field=models.JSONField(default=dict)
        ),
    ]
