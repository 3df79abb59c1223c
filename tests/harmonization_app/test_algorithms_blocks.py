"""ComBat out of core: the same numbers, findings and refusals as in memory, however the features are divided."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harmonization_app.algorithms import blocks
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.specification import Covariate, FeaturePool, Specification
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.diagnostics.gate import check
from hub.core.errors import InvalidInput

PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))
UNIT, FEATURES = 1024, 4_500
SIZES = {"A": 30, "B": 25, "C": 40, "D": 22}


def _table(features: int = FEATURES, seed: int = 1, larger: int = 1) -> Dataset:
    random = np.random.default_rng(seed)
    sizes = [size * larger for size in SIZES.values()]
    batches = random.permutation(np.repeat(list(SIZES), sizes))
    scans = len(batches)
    codes = np.searchsorted(list(SIZES), batches)
    age, sex = random.uniform(20, 80, scans), random.choice(["F", "M"], scans)
    values = random.normal(2.5, 0.2, (scans, features)) + random.normal(0, 0.1, (4, features))[codes]
    values -= np.outer(age - 50, random.normal(0.004, 0.001, features))
    return Dataset(
        values,
        tuple(f"f{i}" for i in range(features)),
        tuple(f"r{i}" for i in range(scans)),
        tuple(batches.tolist()),
        {"age": tuple(age.tolist()), "sex": tuple(sex.tolist())},
    )


@pytest.fixture(scope="module")
def table() -> Dataset:
    return _table()


def _labels(dataset: Dataset) -> blocks.Labels:
    return blocks.Labels(dataset.features, dataset.rows, dataset.batches, dataset.covariates, dataset.units)


def _with_holes(dataset: Dataset) -> Dataset:
    values = dataset.values.copy()
    values[np.random.default_rng(2).random(values.shape) < 0.02] = np.nan
    values[:, 7] = 3.0
    values[np.array(dataset.batches) == "C", 4_000] = 1.0
    return dataset.with_values(values)


class _Target:
    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.full(shape, -99.0)

    def write(self, columns: slice, values: np.ndarray) -> None:
        self.values[:, columns] = values


def _in_stages(dataset: Dataset, plan: Specification, bounds: list[int], seed: int = 0):
    """Return values and model by stages whose outputs travel as bytes, blocks taken in a shuffled order."""
    task = blocks.prepare(_labels(dataset), plan)
    source = blocks.ArraySource(dataset.values)
    pieces = [slice(start, stop) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]
    order = np.random.default_rng(seed).permutation(len(pieces))
    stored = [blocks.save_part(blocks.block_statistics(task, source, pieces[i])) for i in order]
    model = blocks.join(task, (blocks.load_part(content) for content in stored))
    target = _Target((len(dataset.rows), bounds[-1]))
    for i in reversed(order.tolist()):
        part = load_model(save_model(blocks.model_block(model, pieces[i])))
        blocks.apply_block(task, part, source, target, pieces[i])
    return target.values, model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"eb": False},
        {"mean_only": True},
        {"reference_batch": "C"},
        {"merge_batches": {"D": "C"}},
        {"covariates": ()},
    ],
    ids=["eb", "without eb", "mean only", "reference", "merged", "no covariates"],
)
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
def test_blocks_at_whole_units_give_the_same_bits(table, changes, holes) -> None:
    dataset = _with_holes(table) if holes else table
    plan = replace(PLAN, unusable_features="pass_through", **changes)
    whole = Combat().harmonize(dataset, plan)

    values, model = _in_stages(dataset, plan, [0, UNIT, 2 * UNIT, FEATURES])

    assert values.tobytes() == whole.values.tobytes()
    assert save_model(model) == save_model(whole.model)


@pytest.mark.parametrize("bounds", [[0, FEATURES], [0, UNIT, FEATURES], [0, 2 * UNIT, FEATURES]])
@pytest.mark.parametrize("seed", [1, 2])
def test_number_and_order_of_blocks_do_not_matter(table, bounds, seed) -> None:
    values, model = _in_stages(table, PLAN, bounds, seed)

    assert values.tobytes() == Combat().harmonize(table, PLAN).values.tobytes()
    assert sum(model.iterations["all"].values()) > len(SIZES)


@pytest.mark.parametrize("bounds", [[0, 1, 3_333, FEATURES], [0, 500, 501, 502, 1_499, 4_499, FEATURES]])
@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
def test_blocks_at_any_bounds_differ_by_rounding_only(table, bounds, holes) -> None:
    dataset = _with_holes(table) if holes else table
    whole = Combat().harmonize(dataset, PLAN)

    values, model = _in_stages(dataset, PLAN, bounds)

    assert max_difference_sd(values, whole.values, dataset.values) < 1e-12
    assert model.iterations == whole.model.iterations
    assert model.flags == whole.model.flags


@pytest.mark.parametrize(("larger", "unit"), [(5, 640), (20, 128)])
def test_units_of_large_batches_give_the_same_bits(larger, unit) -> None:
    dataset = _table(2_000, larger=larger)
    task = blocks.prepare(_labels(dataset), PLAN)

    values, model = _in_stages(dataset, PLAN, [0, unit, 3 * unit, 2_000])

    assert task.unit == unit
    assert values.tobytes() == Combat().harmonize(dataset, PLAN).values.tobytes()


@pytest.mark.parametrize(
    ("changes", "holes"),
    [
        ({}, False),
        ({"reference_batch": "C"}, True),
        ({"mean_only": True}, False),
        ({"mean_only": True}, True),
    ],
    ids=["complete", "reference and holes", "mean only", "mean only and holes"],
)
def test_nonparametric_priors_are_those_of_all_features(changes, holes) -> None:
    dataset = _table(700)
    if holes:
        values = dataset.values.copy()
        values[np.random.default_rng(2).random(values.shape) < 0.02] = np.nan
        dataset = dataset.with_values(values)
    plan = replace(PLAN, parametric=False, **changes)

    values, _ = _in_stages(dataset, plan, [0, 300, 700])

    assert max_difference_sd(values, Combat().harmonize(dataset, plan).values, dataset.values) < 1e-12


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
@pytest.mark.parametrize(
    "changes", [{"reference_batch": "C", "mean_only": True}, {"mean_only": True, "eb": False}]
)
def test_options_together_give_the_same_bits(table, changes, holes) -> None:
    dataset = _with_holes(table) if holes else table
    plan = replace(PLAN, unusable_features="pass_through", **changes)

    values, _ = _in_stages(dataset, plan, [0, UNIT, FEATURES])

    assert values.tobytes() == Combat().harmonize(dataset, plan).values.tobytes()


def test_chosen_features_and_pools_are_those_of_the_plan(table) -> None:
    names = (*table.features[4_000:4_400], *table.features[10:60], table.features[5])
    pools = (FeaturePool("first", names[:300]), FeaturePool("rest", names[300:]))
    plan = replace(PLAN, features=names, pools=pools)
    whole = Combat().harmonize(table, plan)

    values, model = _in_stages(table, plan, [0, 100, 430, len(names)])

    assert max_difference_sd(values, whole.values, whole.values) < 1e-12
    assert model.features == names
    assert model.iterations == whole.model.iterations


def _findings(dataset: Dataset, plan: Specification, bounds: list[int]):
    task = blocks.prepare(_labels(dataset), plan)
    source = blocks.ArraySource(dataset.values)
    pieces = [slice(start, stop) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]
    return blocks.examine(task, [blocks.block_statistics(task, source, piece) for piece in pieces])[0]


def _damage(dataset: Dataset, kind: str) -> Dataset:
    values, batches, covariates = dataset.values.copy(), list(dataset.batches), dict(dataset.covariates)
    men = np.array(covariates["sex"]) == "M"
    if kind == "infinite":
        values[3, 40], values[5, 660] = np.inf, -np.inf
    elif kind == "infinite and missing":
        values[3, 40], values[5, 40], values[6, 90] = np.inf, np.nan, np.nan
    elif kind == "constant":
        values[:, [1, 600]] = 2.0
        values[np.array(batches) == "B", 650] = 2.0
    elif kind == "lacking":
        values[np.array(batches) == "A", 30] = np.nan
        values[np.array(batches) == "B", 31] = np.nan
    elif kind == "undetermined":
        values[men, 50], values[men, 651] = np.nan, np.nan
    elif kind == "same scan":
        values[20], values[90, :600] = values[3], values[4, :600]
    elif kind == "empty batch label":
        batches[4] = None
        values[5, 40] = np.inf
    elif kind == "confounded":
        covariates["age"] = tuple(float("ABCD".index(batch)) for batch in batches)
    elif kind == "outliers":
        values[8] += 30
    return replace(dataset, values=values, batches=tuple(batches), covariates=covariates)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("none", "design_condition"),
        ("infinite", "infinite_value"),
        ("infinite and missing", "missing_value"),
        ("constant", "constant_in_batch"),
        ("lacking", "feature_lacks_batch"),
        ("undetermined", "feature_not_estimable"),
        ("same scan", "duplicate_values"),
        ("empty batch label", "missing_batch"),
        ("confounded", "confounded_with_batch"),
        ("outliers", "outlying_scan"),
    ],
)
@pytest.mark.parametrize("bounds", [[0, 700], [0, 100, 610, 700]])
def test_gate_finds_the_same_by_blocks(kind, code, bounds) -> None:
    dataset = _damage(_table(700), kind)

    findings = _findings(dataset, PLAN, bounds)

    assert [item.to_json() for item in findings] == [item.to_json() for item in check(dataset, PLAN)]
    assert code in {item.code for item in findings}


def test_scans_alike_in_some_blocks_only_are_not_the_same_scan() -> None:
    dataset = _damage(_table(700), "same scan")

    found = [item for item in _findings(dataset, PLAN, [0, 300, 600, 700]) if item.code == "duplicate_values"]

    assert [item.rows for item in found] == [("r20",)]


def test_names_and_parameters_at_fault_are_refused_before_a_cell_is_read(table) -> None:
    twice = replace(_labels(table), rows=("r1", *table.rows[1:]))

    with pytest.raises(HarmonizationRefused, match="row key occurs more than once"):
        blocks.prepare(twice, PLAN)
    with pytest.raises(HarmonizationRefused, match="lacks features"):
        blocks.prepare(_labels(table), replace(PLAN, features=("f1", "other")))


def test_join_takes_no_part_of_another_table_and_no_gap(table) -> None:
    task = blocks.prepare(_labels(table), PLAN)
    other = blocks.prepare(_labels(table), replace(PLAN, eb=False))
    source = blocks.ArraySource(table.values)
    first = blocks.block_statistics(task, source, slice(0, UNIT))
    last = blocks.block_statistics(task, source, slice(UNIT, FEATURES))

    with pytest.raises(InvalidInput, match="another table or plan"):
        blocks.join(other, [first, last])
    with pytest.raises(InvalidInput, match="do not tile"):
        blocks.join(task, [last])
    with pytest.raises(InvalidInput, match="do not tile"):
        blocks.join(task, [first, first, last])
    with pytest.raises(InvalidInput, match="end at feature 1024"):
        blocks.join(task, [first])


def test_a_stored_part_is_the_same_bytes_again_and_damage_is_told(table) -> None:
    task = blocks.prepare(_labels(table), PLAN)
    part = blocks.block_statistics(task, blocks.ArraySource(table.values), slice(0, 300))
    content = blocks.save_part(part)

    assert blocks.save_part(blocks.load_part(content)) == content
    for damaged in (b"", content[:1_000], content.replace(b'"format":1', b'"format":9'), b"no archive"):
        with pytest.raises(InvalidInput):
            blocks.load_part(damaged)


def _file(folder: Path, dataset: Dataset, kind: str) -> Path | np.ndarray:
    path = folder / f"{kind}.npy"
    if kind == "scans first":
        np.save(path, dataset.values)
    elif kind == "fortran":
        np.save(path, np.asfortranarray(dataset.values))
    else:
        np.save(path, dataset.values)
        return np.load(path, mmap_mode="r")
    return path


@pytest.mark.parametrize("kind", ["scans first", "fortran", "memory map"])
@pytest.mark.parametrize("layout", ["scans_first", "features_first"])
def test_files_are_harmonized_in_either_layout(table, tmp_path, kind, layout) -> None:
    target = tmp_path / "harmonized.npy"
    seen: list[tuple[float, str]] = []

    model = blocks.harmonize_blocks(
        _file(tmp_path, table, kind),
        target,
        _labels(table),
        PLAN,
        progress=lambda fraction, text: seen.append((fraction, text)),
        memory_limit_bytes=294 << 20,
        layout=layout,
    )

    whole, stored = Combat().harmonize(table, PLAN), np.load(target)
    values = stored if layout == "scans_first" else stored.T
    assert values.shape == table.values.shape
    assert values.tobytes() == whole.values.tobytes()
    assert save_model(model) == save_model(whole.model)
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert "of memory at most" in seen[0][1]
    assert seen[-1] == (1.0, "done")
    assert "reading block 3 of 3" in {text for _, text in seen}
    assert sorted(item.name for item in tmp_path.iterdir() if item.name.startswith(".")) == []


def test_float32_files_and_other_sources_are_read_as_they_are(table, tmp_path) -> None:
    single = table.values.astype(np.float32)
    np.save(tmp_path / "single.npy", single)
    np.save(tmp_path / "turned.npy", single.T)

    class Own:
        shape = single.shape

        def read(self, columns: slice) -> np.ndarray:
            return single[:, columns].astype(np.float64)

    expected = Combat().harmonize(table.with_values(single.astype(np.float64)), PLAN).values
    turned = blocks.open_npy(tmp_path / "turned.npy", "features_first")
    sources = [
        tmp_path / "single.npy",
        turned,
        Own(),
        single,
    ]
    for number, source in enumerate(sources):
        target = tmp_path / f"out{number}.npy"
        blocks.harmonize_blocks(source, target, _labels(table), PLAN, layout="scans_first")
        assert np.load(target).tobytes() == expected.tobytes()
    turned.close()


def test_a_view_of_a_memory_map_is_read_as_the_view(table, tmp_path) -> None:
    np.save(tmp_path / "all.npy", table.values)
    view = np.load(tmp_path / "all.npy", mmap_mode="r")[:, 100:900]

    read = blocks.open_source(view).read(slice(0, 5))

    assert np.array_equal(read, table.values[:, 100:105])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no array", "not an NPY file"),
        (np.arange(12), "dimension"),
        (np.arange(12).reshape(3, 4), "floating point"),
    ],
)
def test_files_that_are_no_table_are_told(tmp_path, content, words) -> None:
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)

    with pytest.raises(InvalidInput, match=words):
        blocks.open_npy(path)


def test_a_short_file_is_told_before_it_is_read(table, tmp_path) -> None:
    path = tmp_path / "cut.npy"
    np.save(path, table.values)
    path.write_bytes(path.read_bytes()[:-8])

    with pytest.raises(InvalidInput, match="need"):
        blocks.open_npy(path)


class _Cancelled(Exception):
    pass


@pytest.mark.parametrize("step", ["of memory", "reading block 2", "estimating", "correcting block 2", "done"])
def test_cancelled_run_leaves_no_file(table, tmp_path, step) -> None:
    def progress(fraction: float, text: str) -> None:
        if step in text:
            raise _Cancelled

    with pytest.raises(_Cancelled):
        blocks.harmonize_blocks(
            table.values,
            tmp_path / "out.npy",
            _labels(table),
            PLAN,
            progress=progress,
            memory_limit_bytes=294 << 20,
        )

    assert list(tmp_path.iterdir()) == []


def test_refused_run_leaves_no_file_and_names_the_cell(table, tmp_path) -> None:
    values = table.values.copy()
    values[8, 4_444] = np.inf

    with pytest.raises(HarmonizationRefused, match="r8.*f4444"):
        blocks.harmonize_blocks(values, tmp_path / "out.npy", _labels(table), PLAN)

    assert list(tmp_path.iterdir()) == []


def test_file_that_exists_is_kept(table, tmp_path) -> None:
    target = tmp_path / "out.npy"
    target.write_bytes(b"earlier")

    with pytest.raises(InvalidInput, match="never overwrite"):
        blocks.harmonize_blocks(table.values, target, _labels(table), PLAN)

    assert target.read_bytes() == b"earlier"


def test_workers_write_one_target_side_by_side(tmp_path) -> None:
    values = np.arange(24.0).reshape(4, 6)
    whole = blocks.NpyTarget.create(tmp_path / "x.npy", (4, 6))
    for columns in (slice(4, 6), slice(0, 3), slice(3, 4)):
        worker = blocks.NpyTarget.reopen(tmp_path / "x.npy")
        worker.write(columns, values[:, columns])
        worker.close()

    assert not (tmp_path / "x.npy").exists()
    whole.finish()

    assert np.array_equal(np.load(tmp_path / "x.npy").T, values)


def test_memory_over_the_limit_is_refused_before_anything_is_read(table, tmp_path) -> None:
    class Unread:
        shape = (117, FEATURES)

        def read(self, columns: slice) -> np.ndarray:
            raise AssertionError("it was read")

    with pytest.raises(blocks.MemoryLimitExceeded, match="need 0.3.* GB .*The limit is 0.10 GB") as refusal:
        blocks.harmonize_blocks(
            Unread(), tmp_path / "x.npy", _labels(table), PLAN, memory_limit_bytes=100_000_000
        )

    assert refusal.value.http_status == 422
    assert list(tmp_path.iterdir()) == []


def test_blocks_get_narrower_where_memory_is_short(table) -> None:
    task = blocks.prepare(_labels(table), PLAN)

    wide = blocks.plan_blocks(task, table.values.shape)
    narrow = blocks.plan_blocks(task, table.values.shape, memory_limit_bytes=294 << 20)

    assert (wide.memory.blocks, narrow.memory.blocks) == (1, 3)
    assert narrow.memory.total_bytes <= 294 << 20
    assert [(item.start, item.stop) for item in narrow.blocks] == [
        (0, 2 * UNIT),
        (2 * UNIT, 4 * UNIT),
        (4 * UNIT, FEATURES),
    ]


def test_labels_of_another_table_are_told(table) -> None:
    task = blocks.prepare(_labels(table), PLAN)

    with pytest.raises(InvalidInput, match="belong together"):
        blocks.plan_blocks(task, (117, 9))


MEASURED = """
import sys
from pathlib import Path
import numpy as np
from harmonization_app.algorithms import blocks
from harmonization_app.algorithms.specification import Covariate, Specification
scans, features, batches, folder = 300, 40_000, 20, Path(sys.argv[1])
labels = blocks.Labels(
    tuple(f"f{i}" for i in range(features)), tuple(f"r{i}" for i in range(scans)),
    tuple(f"b{i % batches}" for i in range(scans)),
    {"age": tuple(np.random.default_rng(1).uniform(20, 80, scans).tolist())},
)
plan = Specification(covariates=(Covariate("age", "continuous"),))
stated = []
blocks.harmonize_blocks(
    folder / "in.npy", folder / "out.npy", labels, plan, memory_limit_bytes=390 << 20,
    progress=lambda fraction, text: stated.append(text),
)
task = blocks.prepare(labels, plan)
estimate = blocks.plan_blocks(task, (scans, features), 390 << 20).memory
assert stated[0] == estimate.sentence()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(estimate.total_bytes, int(peak.split()[1]) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_stated_memory_is_kept_and_not_wildly_above_what_is_taken(tmp_path) -> None:
    values = np.random.default_rng(3).normal(size=(300, 40_000))
    np.save(tmp_path / "in.npy", values)
    del values

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True
    )

    stated, measured = (int(part) for part in done.stdout.split())
    assert measured <= stated <= 2 * measured, (stated, measured)
    assert stated <= 390 << 20


def test_blocks_are_as_many_as_workers_need():
    wide = blocks.estimate_memory(100, 50_000, 4, 3, unit=1024)
    shared = blocks.estimate_memory(100, 50_000, 4, 3, unit=1024, least_blocks=16)
    narrow = blocks.estimate_memory(100, 1_500, 4, 3, unit=1024, least_blocks=16)

    assert wide.blocks == 1
    assert shared.blocks >= 13 and shared.width % 1024 == 0
    assert (narrow.blocks, narrow.width) == (2, 1024)
