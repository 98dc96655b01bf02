"""A cohort of radiomic profiles whose truth is known: clusters, scanners, an outcome, and what lies behind one cluster.

There are three clusters, which show in half of the features, and three models of scanner, which show in nearly all of them and
are spread evenly over the clusters. Cluster 3 fares worst, and in it twenty genes are higher, one gene is mutated more often, and
one protein is stained more strongly. Nothing else is linked to a cluster but the stage, which is higher in cluster 3, and with it
the treatment.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import norm

from features.feature import Feature
from features.genes import gene_table
from features.imaging.profiles import PROFILES
from features.settings import Settings
from features.signatures import find_signature, signatures
from training.simulate import AGE_MEAN, AGE_SD, STAGE_EFFECT, STAGES, draw_follow_up, patient_names, refuse_no_csv, write_files

SEQUENCES = {"T2": "t2w", "DWI": "dwi", "ADC": "adc"}
VOLUME = "t2w_original_shape_VoxelVolume"
CLUSTER_SHARES, WORST = (0.4, 0.3, 0.3), 3
# Scanner, field strength (T), echo time (ms), slice thickness (mm), and share of the patients of every cluster.
PROTOCOLS = (
    ("A", 1.5, 92.0, 5.0, 0.25),
    ("A", 1.5, 104.0, 4.0, 0.15),
    ("B", 1.5, 110.0, 5.0, 0.2),
    ("B", 1.5, 98.0, 3.0, 0.1),
    ("C", 3.0, 80.0, 3.0, 0.3),
)
# Of the features that do not depend on the size of the tumour, those that show the clusters, and that show the scanner.
CLUSTER_SHARE, SCANNER_SHARE = 0.6, 0.95
# What PyRadiomics sums over a tumour's voxels grows with the tumour, whatever it is meant to measure.
SIZE = re.compile(r"_shape_(?!Elongation|Flatness|Sphericity)|NonUniformity$|firstorder_(Total)?Energy$|Busyness$")
SIZE_CORRELATION = 0.85

STAGE_SHARES, STAGE_SHARES_OF_WORST = (0.25, 0.45, 0.25, 0.05), (0.12, 0.38, 0.35, 0.15)
HISTOLOGIES, HISTOLOGY_SHARES = ("squamous", "adenocarcinoma", "other"), (0.72, 0.2, 0.08)
SURGERY_BY_STAGE = (0.8, 0.4, 0.1, 0.0)

GENES = 2000  # of fewer, twenty that rise in rank would push all others down
LINKED_SET, LINKED_GENES = "SIM_LINKED", find_signature("buffa2010").genes[:20]
OTHER_SETS, SET_SIZES = 12, (16, 60)
DRIVERS = {
    "TP53": 0.1, "PIK3CA": 0.3, "KMT2C": 0.2, "KMT2D": 0.15, "FBXW7": 0.15, "EP300": 0.12, "FAT1": 0.12, "PTEN": 0.1,
    "ARID1A": 0.1, "KRAS": 0.08, "NFE2L2": 0.08, "CASP8": 0.08, "STK11": 0.07, "RB1": 0.06,
}  # fmt: skip
LINKED_MUTATION, LINKED_FREQUENCY = "TP53", 0.55
OTHER_MUTATIONS = 2.0
CLASSES = {"Missense_Mutation": 0.75, "Nonsense_Mutation": 0.12, "Frame_Shift_Del": 0.08, "Splice_Site": 0.05}
PROTEINS, LINKED_PROTEIN, PROTEIN_SHIFT = ("CA9", "VEGFA", "EGFR", "MKI67", "CD274"), "CA9", 1.5
STAINED_FROM = (-0.3, 0.5, 1.3)


class ProfileSimulationSettings(Settings):
    """What a simulated cohort of profiles is like.

    Parameters
    ----------
    n : int
        Patients.
    events : float
        Progressions to be expected by the horizon; how many there are is chance.
    separation : float
        How far the clusters lie apart in a feature that shows them: the root mean square distance of their means from the common
        one, in standard deviations within clusters, on average over these features; 0 for none that can be seen.
    scanner_effect : float
        Standard deviation over scanners of the shift of a feature, in the same unit; 0 for none.
    cluster_effect : float
        Hazard ratio of cluster 3 against the others, which fare alike, at the same stage; 1 for none.
    expression_effect : float
        Difference of the linked genes in cluster 3, in log2 units; 0 for none.
    horizon : float
        Months after which follow-up ends.
    world : int
        What is drawn once for all cohorts: which features show clusters and scanners, how, and in which units. The same world
        with another seed is another hospital.
    """

    n: int = Field(default=132, ge=30, le=20_000)
    events: float = Field(default=40, gt=0)
    separation: float = Field(default=1.2, ge=0, le=10)
    scanner_effect: float = Field(default=1.5, ge=0, le=20)
    cluster_effect: float = Field(default=4.0, gt=0, le=50)
    expression_effect: float = Field(default=1.2, ge=-5, le=5)
    horizon: float = Field(default=60, ge=1, allow_inf_nan=False)
    world: int = Field(default=0, ge=0)


class ProfileTruth(Settings):
    """What a simulated cohort of profiles was made from.

    Attributes
    ----------
    clusters : dict of str to int
        Planted cluster of each patient, from 1.
    worst : int
        The cluster with the higher hazard and the molecular links.
    cluster_features, scanner_features, size_features : tuple of str
        Features that show the clusters, that show the scanner, and that follow the tumour's volume.
    linked_genes, linked_set, linked_mutation, linked_protein : tuple of str, str
        What differs in the worst cluster; no other gene, set or protein differs. Other drivers and proteins are as frequent in
        each cluster of the cohort itself, and other sets balanced, so that whatever else is found of them is no accident.
    mutation_frequencies : tuple of float
        Of the linked gene, in the worst cluster and in the others.
    stage_effect : float
        Hazard ratio per step of the stage.
    monthly_hazard : float
        Of a patient of the other clusters with stage I.
    expected_events, observed_events : float, int
    """

    kind: Literal["simulated profiles"] = "simulated profiles"
    settings: ProfileSimulationSettings
    seed: int | None
    clusters: dict[str, int]
    worst: int = WORST
    cluster_features: tuple[str, ...]
    scanner_features: tuple[str, ...]
    size_features: tuple[str, ...]
    linked_genes: tuple[str, ...] = LINKED_GENES
    linked_set: str = LINKED_SET
    linked_mutation: str = LINKED_MUTATION
    mutation_frequencies: tuple[float, float] = (LINKED_FREQUENCY, DRIVERS[LINKED_MUTATION])
    linked_protein: str = LINKED_PROTEIN
    stage_effect: float = STAGE_EFFECT
    monthly_hazard: float
    expected_events: float
    observed_events: int

    @property
    def sizes(self) -> dict[int, int]:
        """Patients in each cluster."""
        return dict(sorted(Counter(self.clusters.values()).items()))


@dataclass(frozen=True)
class SimulatedProfiles:
    """A cohort of profiles and its truth.

    Attributes
    ----------
    table : DataFrame of shape (n_patients, 304)
        Columns: patient, 293 features named as ``halle2024`` measures them, scanner, field_strength (T), echo_time (ms),
        slice_thickness (mm), stage (I to IV), age (years), histology, treatment, pfs_months, progressed (1 at that time, 0
        censored).
    expression : DataFrame of shape (n_patients, 1001)
        Column patient, then genes in log2 units.
    gene_sets : dict of str to tuple of str
        The linked set, and others without a link.
    mutations : DataFrame of shape (n_mutations, 3)
        Columns of a MAF: Hugo_Symbol, Tumor_Sample_Barcode (the patient), Variant_Classification. Every patient has one or more.
    proteins : DataFrame of shape (n_patients, 6)
        Column patient, then staining from 0 (none) to 3 (strong).
    truth : ProfileTruth
    """

    table: pd.DataFrame
    expression: pd.DataFrame
    gene_sets: dict[str, tuple[str, ...]]
    mutations: pd.DataFrame
    proteins: pd.DataFrame
    truth: ProfileTruth


def simulate_profiles(
    settings: ProfileSimulationSettings, rng: np.random.Generator, seed: int | None = None
) -> SimulatedProfiles:
    """Draw a cohort of profiles.

    Each part has a generator of its own: another effect changes what it acts on, in the same patients.

    Parameters
    ----------
    seed : int, optional
        What `rng` was made from, to be written down with the truth.

    Raises
    ------
    InputError
        More events are asked for than the patients and their follow-up can give.

    Examples
    --------
    >>> cohort = simulate_profiles(ProfileSimulationSettings(), np.random.default_rng(7))
    >>> cohort.table.shape, cohort.expression.shape, cohort.truth.sizes
    ((132, 304), (132, 2001), {1: 53, 2: 39, 3: 40})
    """
    of_patients, of_features, of_outcome, of_genes, of_mutations, of_proteins = rng.spawn(6)
    clusters = of_patients.permutation(_apportioned(settings.n, CLUSTER_SHARES)) + 1
    protocols = _protocols(clusters, of_patients)
    clinical = _clinical(clusters == WORST, of_patients)
    # Of another hospital: a model is not judged on patients who bear the names of those whom it learnt from.
    hospital = "" if seed is None else f"H{seed}"
    patients = pd.Series([f"{hospital}{name}" for name in patient_names(settings.n)], name="patient")
    features, shown = _features(settings, clusters, protocols["scanner"], of_features)
    stage = clinical["stage"].map(STAGES.index).to_numpy()
    log_hazard = (clusters == WORST) * log(settings.cluster_effect) + stage * log(STAGE_EFFECT)
    followed = draw_follow_up(log_hazard, settings.horizon, settings.events, of_outcome)
    outcome = pd.DataFrame({"pfs_months": followed.months, "progressed": followed.progressed})
    expression = _expression(settings, clusters == WORST, of_genes)
    sets = _gene_sets(expression, clusters == WORST, of_genes)
    in_sets = {gene for genes in sets.values() for gene in genes} | set(DRIVERS)
    truth = ProfileTruth(
        settings=settings,
        seed=seed,
        clusters=dict(zip(patients, clusters.tolist(), strict=True)),
        **shown,
        monthly_hazard=followed.monthly_hazard,
        expected_events=followed.expected_events,
        observed_events=int(followed.progressed.sum()),
    )
    return SimulatedProfiles(
        pd.concat([patients, features, protocols, clinical, outcome], axis=1),
        pd.concat([patients, expression], axis=1),
        sets,
        _mutations(clusters, patients.to_numpy(), np.array(sorted(set(map(str, expression)) - in_sets)), of_mutations),
        pd.concat([patients, _proteins(clusters, of_proteins)], axis=1),
        truth,
    )


def profile_paths(table: Path) -> dict[str, Path]:
    """Where the parts of a cohort are written: beside its table.

    Examples
    --------
    >>> profile_paths(Path("made/profile.csv"))["gene_sets"].as_posix()
    'made/profile.gene_sets.gmt'
    """
    endings = {
        "expression": ".expression.csv",
        "gene_sets": ".gene_sets.gmt",
        "mutations": ".maf",
        "proteins": ".proteins.csv",
        "truth": ".truth.json",
    }
    return {"table": table, **{part: table.with_suffix(ending) for part, ending in endings.items()}}


def write_profiles(cohort: SimulatedProfiles, table: Path, *, force: bool) -> None:
    """Write all parts, or none.

    Raises
    ------
    InputError
        One of them is there already and may not be replaced, or cannot be written.
    """
    refuse_no_csv(table)
    sets = ["\t".join((name, "simulated", *genes)) + "\n" for name, genes in cohort.gene_sets.items()]
    texts = {
        "table": cohort.table.to_csv(index=False, float_format="%.6g"),
        "expression": cohort.expression.to_csv(index=False),
        "gene_sets": "".join(sets),
        "mutations": "#simulated\n" + cohort.mutations.to_csv(index=False, sep="\t"),
        "proteins": cohort.proteins.to_csv(index=False),
        "truth": cohort.truth.model_dump_json(indent=1) + "\n",
    }
    paths = profile_paths(table)
    write_files({paths[part]: text for part, text in texts.items()}, force=force)


@cache
def _described() -> tuple[Feature, ...]:
    """The 293 features, named by this cohort's sequences."""
    named = PROFILES["halle2024"].features(list(SEQUENCES))
    return tuple(
        one.model_copy(update={"name": SEQUENCES[one.sequence] + one.name.removeprefix(one.sequence)})
        for one in named
        if one.sequence is not None
    )


@cache
def _genes() -> tuple[str, ...]:
    """The linked genes, the drivers, and others from the whole alphabet that are in no signature."""
    taken = {gene for signature in signatures().values() for gene in signature.genes} | set(DRIVERS)
    plain = re.compile(r"(?!LINC|MIR|SNOR|RNU|.*P\d*$)[A-Z]{3,6}\d{0,2}[A-Z]?\d?")  # genes of proteins, most of them
    others = [symbol for symbol in sorted(gene_table().symbols - taken) if plain.fullmatch(symbol)]
    wanted = GENES - len(LINKED_GENES) - len(DRIVERS)
    return (*LINKED_GENES, *DRIVERS, *others[:: len(others) // wanted][:wanted])


def _apportioned(n: int, shares: tuple[float, ...]) -> np.ndarray:
    """Positions among the shares for n patients, each as often as its share says, to rounding."""
    ends = np.cumsum(shares) / np.sum(shares)
    return np.searchsorted(ends, (np.arange(n) + 0.5) / n)


def _alike(clusters: np.ndarray, shares: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Positions among the shares, at random within each cluster and as often in each: only so are clusters not followed."""
    drawn = np.empty(len(clusters), dtype=int)
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        drawn[members] = rng.permutation(_apportioned(len(members), shares))
    return drawn


def _protocols(clusters: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    drawn = _alike(clusters, tuple(one[-1] for one in PROTOCOLS), rng)
    known = pd.DataFrame(PROTOCOLS, columns=["scanner", "field_strength", "echo_time", "slice_thickness", "share"])
    return known.drop(columns="share").iloc[drawn].reset_index(drop=True)


def _clinical(worst: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    n, place = len(worst), rng.random(len(worst))
    of_others, of_worst = (np.searchsorted(np.cumsum(shares[:-1]), place) for shares in (STAGE_SHARES, STAGE_SHARES_OF_WORST))
    stage = np.where(worst, of_worst, of_others)
    surgery = rng.random(n) < np.array(SURGERY_BY_STAGE)[stage]
    return pd.DataFrame(
        {
            "stage": np.array(STAGES)[stage],
            "age": np.clip(rng.normal(AGE_MEAN, AGE_SD, n), 18, 95).round().astype(int),
            "histology": rng.choice(HISTOLOGIES, size=n, p=HISTOLOGY_SHARES),
            "treatment": np.where(surgery, "surgery", "chemoradiotherapy"),
        }
    )


def _features(
    settings: ProfileSimulationSettings, clusters: np.ndarray, scanner: pd.Series, rng: np.random.Generator
) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """Features in units of their own, and the names of those that show clusters, scanner and size.

    What features show, and in which units, is the same in every cohort of a world; `rng` draws the patients.
    """
    described, world = _described(), np.random.default_rng([settings.world, 0])
    names = np.array([one.name for one in described])
    size = np.array([SIZE.search(name) is not None for name in names])
    blocks, block = np.unique([f"{one.sequence} {one.family}" for one in described], return_inverse=True)
    loadings = world.choice([-1, 1], len(names)) * world.uniform(0.5, 0.9, len(names))
    in_clusters = ~size & (world.random(len(names)) < CLUSTER_SHARE)
    of_scanner = np.array([one.family != "shape" for one in described]) & (world.random(len(names)) < SCANNER_SHARE)
    texture = _correlated(loadings, block, len(clusters), rng)
    texture += settings.separation * in_clusters * _cluster_means(clusters, loadings, block, len(blocks), world)
    volume = rng.normal(size=len(clusters))
    share = np.where(names == VOLUME, 1.0, np.where(size, SIZE_CORRELATION, 0.0))
    values = share * volume[:, None] + np.sqrt(1 - share**2) * texture
    values += settings.scanner_effect * of_scanner * _scanner_means(scanner, len(names), world)
    table = pd.DataFrame(_in_units(values, world), columns=names)
    table[VOLUME] = np.exp(10 + 0.8 * volume)  # mm3: a median of 22 ml
    shown = {"cluster_features": in_clusters, "scanner_features": of_scanner, "size_features": size}
    return table, {key: tuple(names[chosen].tolist()) for key, chosen in shown.items()}


def _correlated(loadings: np.ndarray, block: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Standard-normal features; those of one family in one sequence share a factor."""
    factors = rng.normal(size=(n, block.max() + 1))
    return loadings * factors[:, block] + np.sqrt(1 - loadings**2) * rng.normal(size=(n, len(loadings)))


def _cluster_means(
    clusters: np.ndarray, loadings: np.ndarray, block: np.ndarray, n_blocks: int, rng: np.random.Generator
) -> np.ndarray:
    """Means of the clusters, patient by patient: a block moves as one, and all blocks together part each pair alike."""
    angles = 2 * np.pi * rng.permutation(n_blocks) / n_blocks
    turned = angles[block] + 2 * np.pi * clusters[:, None] / len(CLUSTER_SHARES)
    return np.sqrt(2) * np.cos(turned) * np.sign(loadings) * rng.uniform(0.5, 1.5, len(loadings))


def _scanner_means(scanner: pd.Series, n_features: int, rng: np.random.Generator) -> np.ndarray:
    code = pd.factorize(scanner, sort=True)[0]
    return rng.normal(size=(code.max() + 1, n_features))[code]


def _in_units(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    middle = rng.uniform(10, 100, values.shape[1])
    return middle + values * middle * rng.uniform(0.05, 0.3, values.shape[1])


def _expression(settings: ProfileSimulationSettings, worst: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Genes that vary on their own, the less the more they are expressed."""
    world = np.random.default_rng([settings.world, 1])
    mean = world.uniform(4, 12, GENES)
    sd = np.clip(0.6 - 0.04 * (mean - 4) + world.normal(0, 0.05, GENES), 0.15, 0.65)
    values = mean + sd * rng.normal(size=(len(worst), GENES))
    values[:, : len(LINKED_GENES)] += settings.expression_effect * worst[:, None]
    return pd.DataFrame(values.round(4), columns=list(_genes()))


def _gene_sets(expression: pd.DataFrame, worst: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """The linked set; others have a driver, and genes that happen to be higher in the worst cluster with as many lower ones."""
    others = expression.drop(columns=[*LINKED_GENES, *DRIVERS])
    rising = ((others[worst].mean() - others[~worst].mean()) / others.std()).sort_values().index.to_numpy()
    pairs = np.column_stack([rising, rising[::-1]])[: len(rising) // 2]
    sizes = rng.integers(*SET_SIZES, size=OTHER_SETS, endpoint=True) // 2
    drivers = [name for name in DRIVERS if name != LINKED_MUTATION]
    pairs_of = (rng.choice(pairs, size, replace=False).ravel().tolist() for size in sizes)
    drawn = (sorted([driver, *genes]) for driver, genes in zip(drivers, pairs_of, strict=False))
    return {LINKED_SET: LINKED_GENES} | {f"SIM_OTHER_{number:02d}": tuple(genes) for number, genes in enumerate(drawn, 1)}


def _mutations(clusters: np.ndarray, patients: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Drivers by their frequencies, and in every patient one or more other genes that few have mutated."""
    drivers = np.array(list(DRIVERS))
    linked = rng.random(len(patients)) < np.where(clusters == WORST, LINKED_FREQUENCY, DRIVERS[LINKED_MUTATION])
    mutated = {name: _alike(clusters, (1 - share, share), rng) for name, share in DRIVERS.items()} | {LINKED_MUTATION: linked}
    who, which = np.nonzero(np.column_stack([mutated[name] for name in drivers]))
    also = np.repeat(np.arange(len(patients)), 1 + rng.poisson(OTHER_MUTATIONS, len(patients)))
    silent = np.repeat(np.arange(len(patients)), rng.poisson(1, len(patients)))
    effective = len(who) + len(also)
    rows = pd.DataFrame(
        {
            "Hugo_Symbol": np.concatenate([drivers[which], rng.choice(others, len(also) + len(silent))]),
            "Tumor_Sample_Barcode": patients[np.concatenate([who, also, silent])],
            "Variant_Classification": [
                *rng.choice(list(CLASSES), effective, p=list(CLASSES.values())),
                *["Silent"] * len(silent),
            ],
        }
    )
    return rows.sort_values(["Tumor_Sample_Barcode", "Hugo_Symbol"], kind="stable", ignore_index=True)


def _proteins(clusters: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    shares = tuple(np.diff(norm.cdf((-np.inf, *STAINED_FROM, np.inf))))
    stained = {name: _alike(clusters, shares, rng) for name in PROTEINS}
    latent = rng.normal(size=len(clusters)) + PROTEIN_SHIFT * (clusters == WORST)
    return pd.DataFrame({**stained, LINKED_PROTEIN: np.searchsorted(STAINED_FROM, latent)})
