"""The command of federated ComBat: a site summarizes and corrects its own table, a coordinator combines.

    python -m harmonization_app.algorithms.dcombat_site summarize --plan plan.json --data site.csv --batch scanner \
        --out site.npz
    python -m harmonization_app.algorithms.dcombat_site combine --plan plan.json --out model.zip site1.npz site2.npz
    python -m harmonization_app.algorithms.dcombat_site apply --model model.zip --data site.csv --batch scanner \
        --out harmonized.csv

`plan.json` holds the parameters of the method. Only the files named by --out are written, and none is replaced.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.dcombat import DCombat, combine_summaries, summarize_batches
from harmonization_app.algorithms.dcombat_summary import load_summary, save_summary
from harmonization_app.algorithms.design import as_number
from harmonization_app.algorithms.model import Model, ModelFiles, load_model, save_model
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.feature_table import CsvLayout, FeatureTable, read_feature_csv
from hub.core.errors import HubError, InvalidInput

MODEL_JSON, MODEL_NPZ = "model.json", "model.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 1 with a sentence on standard error when refused."""
    options = _parser().parse_args(arguments)
    try:
        content: bytes = options.run(options)
        _write_new(Path(options.out), content)
    except HubError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{error.filename or 'A file'}: {error.strerror or error}.\n")
        return 1
    sys.stdout.write(f"Wrote {options.out}.\n")
    return 0


def _summarize(options: argparse.Namespace) -> bytes:
    specification = _read_plan(Path(options.plan))
    _, dataset = _read_site(options, specification)
    return save_summary(summarize_batches(dataset, specification))


def _combine(options: argparse.Namespace) -> bytes:
    specification = _read_plan(Path(options.plan))
    summaries = [load_summary(Path(name).read_bytes()) for name in options.summaries]
    files = save_model(combine_summaries(summaries, specification))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in ((MODEL_JSON, files.document), (MODEL_NPZ, files.arrays)):
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _apply(options: argparse.Namespace) -> bytes:
    model = _read_model(Path(options.model))
    table, dataset = _read_site(options, model.specification)
    result = DCombat().apply(model, dataset)
    for finding in result.findings:
        sys.stderr.write(f"{finding.message}\n")
    if model.features != table.features:
        raise InvalidInput("The table has other features than the model; leave the others out of the table.")
    return table.with_values(result.values).canonical


def _read_plan(path: Path) -> Specification:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidInput(f"{path.name} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path.name} must hold one JSON object with the method's parameters.")
    return Specification.from_json(document)


def _read_model(path: Path) -> Model:
    try:
        with zipfile.ZipFile(path) as archive:
            files = ModelFiles(archive.read(MODEL_JSON), archive.read(MODEL_NPZ))
    except (KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path.name} is not a model made by the combine command: {error}.") from error
    model = load_model(files)
    if model.algorithm != DCombat.id:
        raise InvalidInput(f"{path.name} is a model of {model.algorithm}, not of {DCombat.id}.")
    return model


def _read_site(options: argparse.Namespace, specification: Specification) -> tuple[FeatureTable, Dataset]:
    names = list(specification.columns)
    metadata = tuple(dict.fromkeys((options.batch, *names, *(options.metadata or ()))))
    layout = CsvLayout(subject=options.subject, visit=options.visit, metadata=metadata, units_required=False)
    table = read_feature_csv(Path(options.data).read_bytes(), layout)
    dataset = table.to_dataset(options.batch, names)
    kinds = {item.name: item.kind for item in specification.covariates}
    covariates = {
        name: tuple(as_number(cell) for cell in column) if kinds.get(name) == "continuous" else column
        for name, column in dataset.covariates.items()
    }
    own = Dataset(dataset.values, dataset.features, dataset.rows, dataset.batches, covariates, dataset.units)
    return table, own


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as target:
        target.write(content)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dcombat_site", description="Federated ComBat without sending rows."
    )
    commands = parser.add_subparsers(required=True)
    summarize = commands.add_parser("summarize", help="make the summary of a site's own table")
    summarize.add_argument("--plan", required=True)
    summarize.set_defaults(run=_summarize)
    combine = commands.add_parser("combine", help="make the model of all sites' summaries")
    combine.add_argument("--plan", required=True)
    combine.add_argument("summaries", nargs="+")
    combine.set_defaults(run=_combine)
    apply = commands.add_parser("apply", help="correct a site's own table by the model")
    apply.add_argument("--model", required=True)
    apply.set_defaults(run=_apply)
    for command in (summarize, apply):
        command.add_argument("--data", required=True, help="CSV with one row per scan")
        command.add_argument("--batch", required=True, help="column that names the batch")
        command.add_argument("--subject", default="subject")
        command.add_argument("--visit")
        command.add_argument("--metadata", action="append", help="a further column that is no feature")
    for command in (summarize, combine, apply):
        command.add_argument("--out", required=True, help="file to write; it must not exist")
    return parser


if __name__ == "__main__":
    sys.exit(main())
