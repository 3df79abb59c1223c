"""The harmonization methods of this hub: identifier, implementation, parameters, capabilities and source
digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from harmonization_app.algorithms.add_batch import explain_new_batch
from harmonization_app.algorithms.base import Algorithm
from harmonization_app.algorithms.baselines import GlobalScaling, ZScore
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.combat_gam import CombatGam
from harmonization_app.algorithms.combat_robust import CombatRobust
from harmonization_app.algorithms.combat_spline import CombatSpline
from harmonization_app.algorithms.control_features import ControlFeatures
from harmonization_app.algorithms.covbat import CovBat
from harmonization_app.algorithms.dcombat import DCombat
from harmonization_app.algorithms.functional_normalization import FunctionalNormalization
from harmonization_app.algorithms.gmm_combat import GMMCombat
from harmonization_app.algorithms.longcombat import LongCombat
from harmonization_app.algorithms.nested import Nested
from harmonization_app.algorithms.nested_search import NestedSearch
from harmonization_app.algorithms.neurocombat import NeuroCombat
from harmonization_app.algorithms.pairwise import Pairwise
from harmonization_app.algorithms.phantom import PhantomCalibration
from harmonization_app.algorithms.sva import SurrogateVariables
from harmonization_app.algorithms.travelling import TravellingSubject
from hub.core.canonical import canonical_json
from hub.core.errors import NotFound

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        algorithm.id: algorithm
        for algorithm in (
            Combat(),
            NeuroCombat(),
            CovBat(),
            CombatSpline(),
            CombatGam(),
            CombatRobust(),
            DCombat(),
            LongCombat(),
            Nested(),
            NestedSearch(),
            GMMCombat(),
            Pairwise(),
            TravellingSubject(),
            PhantomCalibration(),
            ControlFeatures(),
            GlobalScaling(),
            ZScore(),
            FunctionalNormalization(),
            SurrogateVariables(),
        )
    }
)


@dataclass(frozen=True, slots=True)
class AlgorithmDescription:
    """What a page or the API shows of a method."""

    id: str
    version: str
    title: str
    parameters_schema: dict[str, Any]
    capabilities: dict[str, bool]
    source_digest: str
    limits: tuple[str, ...]
    exploratory: bool
    new_batch: str


def get_algorithm(algorithm_id: str) -> Algorithm:
    """Return the method. Raises NotFound naming the known ones."""
    try:
        return ALGORITHMS[algorithm_id]
    except KeyError:
        raise NotFound(
            f"There is no algorithm {algorithm_id!r}; the hub has {', '.join(sorted(ALGORITHMS))}."
        ) from None


def describe(algorithm_id: str) -> AlgorithmDescription:
    """Return the description of a method. Raises NotFound."""
    algorithm = get_algorithm(algorithm_id)
    return AlgorithmDescription(
        id=algorithm.id,
        version=algorithm.version,
        title=algorithm.title,
        parameters_schema=algorithm.parameters_schema(),
        capabilities=asdict(algorithm.capabilities),
        source_digest=source_digest(algorithm),
        limits=algorithm.limits,
        exploratory=algorithm.exploratory,
        new_batch=explain_new_batch(algorithm.id),
    )


def source_digest(algorithm: Algorithm) -> str:
    """Return the SHA-256 over the method's source files (name and content) and its parameters' schema."""
    whole = hashlib.sha256()
    for module in sorted(algorithm.source_modules):
        package, _, name = module.rpartition(".")
        content = resources.files(package).joinpath(f"{name}.py").read_bytes()
        whole.update(f"{module}:{len(content)}:".encode())
        whole.update(content)
    whole.update(canonical_json({"id": algorithm.id, "version": algorithm.version}))
    whole.update(canonical_json(algorithm.parameters_schema()))
    return whole.hexdigest()
