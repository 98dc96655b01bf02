"""Noise as it comes: drivers, proteins and sets drawn without a look at the groups, and genes that vary together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from molecules_made import SYMBOLS

from training.molecular.molecules import Molecules
from training.molecular.run import Correlates, correlate
from training.molecular.study import MolecularSettings

PATIENTS, BLOCK, PLANTED = 120, 30, 12
LINKED, DRIVERS, PROTEINS = SYMBOLS[:PLANTED], SYMBOLS[100:114], ("CA9", "VEGFA", "EGFR", "MKI67", "CD274")
SETTINGS = MolecularSettings(expression={"path": "none.csv"}, mutations="none.maf", permutations=300)


def unbalanced(seed: int) -> Correlates:
    """Of 120 patients about three in ten are severe; twelve genes, a set of them, one driver and one protein go with it."""
    rng = np.random.default_rng([seed, 6])
    patients = [f"P{number}" for number in range(PATIENTS)]
    severe = rng.random(PATIENTS) < 0.3
    return correlate(
        SETTINGS,
        Molecules(
            expression=_expression(severe, rng).set_axis(patients),
            whose=pd.Series(patients, index=patients),
            sets=_sets(rng),
            variants=_variants(patients, severe, rng),
            sequenced=tuple(patients),
            proteins=_proteins(severe, rng).set_axis(patients),
        ),
        pd.Series(np.where(severe, "severe", "mild"), index=patients),
        lambda stage: np.random.default_rng([seed, len(stage)]),
    )


def _expression(severe: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Thirty genes at a time share a factor, but for the planted ones."""
    blocks = rng.normal(size=(PATIENTS, len(SYMBOLS) // BLOCK)).repeat(BLOCK, axis=1)
    values = 8 + 0.6 * blocks + 0.8 * rng.normal(size=(PATIENTS, len(SYMBOLS)))
    values[:, :PLANTED] = 8 + rng.normal(size=(PATIENTS, PLANTED)) + 1.5 * severe[:, None]
    return pd.DataFrame(values, columns=SYMBOLS)


def _sets(rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    unlinked = [gene for gene in SYMBOLS[PLANTED:] if gene != DRIVERS[0]]
    others = {f"OTHER{number}": tuple(rng.choice(unlinked, rng.integers(15, 60), False)) for number in range(12)}
    return {"LINKED": (*LINKED, *SYMBOLS[200:205]), **others}


def _variants(patients: list[str], severe: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    mutated = rng.random((PATIENTS, len(DRIVERS))) < rng.uniform(0.06, 0.3, len(DRIVERS))
    mutated[:, 0] = rng.random(PATIENTS) < np.where(severe, 0.6, 0.1)
    rows = [(DRIVERS[gene], patients[who], "Missense_Mutation") for who, gene in zip(*mutated.nonzero(), strict=True)]
    return pd.DataFrame(rows, columns=["Hugo_Symbol", "Tumor_Sample_Barcode", "Variant_Classification"])


def _proteins(severe: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    latent = rng.normal(size=(PATIENTS, len(PROTEINS)))
    latent[:, 0] += 1.5 * severe
    return pd.DataFrame(np.searchsorted((-0.3, 0.5, 1.3), latent).astype(float), columns=PROTEINS)


TRUE = {
    "genes": set(LINKED),
    "gene_sets": {"LINKED"},
    "gene_set_scores_tests": {"LINKED"},
    "mutated_genes": {DRIVERS[0]},
    "mutated_pathways": set(),
    "protein_tests": {"CA9"},
}


def found_by(one: Correlates) -> dict[str, set[str]]:
    (contrast,) = one.genes
    assert contrast.enriched is not None
    associated = {name: set(found) for name, found in one.as_json()["associated"].items()}
    return {"genes": set(contrast.called.index), "gene_sets": set(contrast.enriched.index), **associated}


@pytest.mark.parametrize("seeds", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_noise_that_nothing_balances_is_seldom_found(seeds: int) -> None:
    found = [found_by(unbalanced(seed)) for seed in range(seeds)]
    clean = {part: np.mean([one[part] <= true for one in found]) for part, true in TRUE.items()}
    whole = {part: np.mean([one[part] >= true for one in found]) for part, true in TRUE.items()}
    assert min(clean.values()) >= 0.9
    assert min(whole.values()) >= 0.9
