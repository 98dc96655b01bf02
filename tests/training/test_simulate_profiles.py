import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result
from scipy.stats import chi2_contingency, fisher_exact, kruskal, mannwhitneyu, spearmanr
from sklearn.metrics import adjusted_rand_score

from features.cohort import Cohort, CohortSettings, load_cohort
from features.errors import InputError
from features.expression import ExpressionSource
from features.feature import Feature
from features.genes import resolve
from features.harmonise import RegressionHarmoniser
from features.imaging.profiles import PROFILES
from features.partial_likelihood import PartialLikelihood
from training.cli_simulate import simulate
from training.profile.clustering import Clustering, squared_distances
from training.profile.study import ProfileStudy
from training.simulate import STAGES
from training.simulate_profiles import (
    DRIVERS,
    VOLUME,
    ProfileSimulationSettings,
    SimulatedProfiles,
    profile_paths,
    simulate_profiles,
    write_profiles,
)

CONFIG = Path(__file__).parents[2] / "configs" / "profile_simulated.yaml"
ACQUISITION = ("scanner", "field_strength", "echo_time", "slice_thickness")
ALL_SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]


@cache
def drawn(seed: int = 0, **settings: float) -> SimulatedProfiles:
    return simulate_profiles(ProfileSimulationSettings(**settings), np.random.default_rng(seed), seed)


def planted(made: SimulatedProfiles) -> np.ndarray:
    return np.array(list(made.truth.clusters.values()))


def found(made: SimulatedProfiles, folder: Path, harmonise: bool) -> tuple[Cohort, np.ndarray]:
    """The cohort as a study reads it, and three clusters of its z scores."""
    write_profiles(made, folder / "simulated" / "profile.csv", force=True)
    cohort = load_cohort(CohortSettings(**yaml.safe_load(CONFIG.read_text())["cohort"]), folder)
    z = cohort.features.to_numpy()
    if harmonise:
        settings = RegressionHarmoniser()
        inputs = settings.inputs(cohort.protocol, None)
        protocol = [cohort.protocol[one.name].map(one.code) if one.levels else cohort.protocol[one.name] for one in inputs]
        z = settings.estimator([Feature(name=name) for name in cohort.features], inputs).fit_transform(
            np.column_stack([z, *protocol])
        )
    z = (z - z.mean(axis=0)) / z.std(axis=0, ddof=1)
    return cohort, Clustering().cluster(squared_distances(z), 3, np.random.default_rng(0)).labels


def association(values: pd.Series, labels: np.ndarray) -> float:
    if values.dtype == object:
        return float(chi2_contingency(pd.crosstab(values, labels))[1])
    return float(kruskal(*[values[labels == label] for label in np.unique(labels)])[1])


@pytest.mark.parametrize("seed", ALL_SEEDS)
def test_planted_clusters_are_found_once_the_acquisition_is_taken_out(seed: int, tmp_path: Path) -> None:
    made = drawn(seed)
    cohort, labels = found(made, tmp_path, harmonise=True)
    assert adjusted_rand_score(planted(made), labels) > 0.9
    assert min(association(cohort.protocol[name], labels) for name in ACQUISITION) > 0.5


@pytest.mark.parametrize("seed", ALL_SEEDS)
def test_clusters_follow_the_scanner_where_it_is_not(seed: int, tmp_path: Path) -> None:
    made = drawn(seed)
    cohort, labels = found(made, tmp_path, harmonise=False)
    assert association(cohort.protocol["scanner"], labels) < 1e-10
    assert adjusted_rand_score(planted(made), labels) < 0.2


def test_without_scanner_effect_clusters_are_found_as_they_are_and_without_separation_never(tmp_path: Path) -> None:
    for settings, least, most in (({"scanner_effect": 0}, 0.9, 1), ({"separation": 0}, -0.1, 0.1)):
        made = drawn(3, **settings)
        _, labels = found(made, tmp_path, harmonise="separation" in settings)
        assert least < adjusted_rand_score(planted(made), labels) <= most


@pytest.mark.parametrize("seed", range(5))
def test_protocols_are_spread_evenly_over_the_planted_clusters(seed: int) -> None:
    made = drawn(seed)
    assert min(association(made.table[name], planted(made)) for name in ACQUISITION) > 0.9


def test_features_are_those_of_the_profile_in_units_of_their_own() -> None:
    names = [name for name in drawn().table if "_original_" in name]
    named = [one.name for one in PROFILES["halle2024"].features(["T2", "DWI", "ADC"])]
    assert names == [name.replace("T2_", "t2w_").replace("DWI_", "dwi_").replace("ADC_", "adc_") for name in named]
    assert drawn().table[names].mean().std() > 10
    assert not drawn().table.isna().any(axis=None)


def test_features_of_a_family_are_correlated_and_those_of_others_are_not() -> None:
    table = drawn(n=3000, events=900, separation=0, scanner_effect=0).table
    size = set(drawn(n=3000, events=900, separation=0, scanner_effect=0).truth.size_features)
    glcm = table[[name for name in table if name.startswith("adc_original_glcm") and name not in size]].corr().abs().to_numpy()
    both = table[[name for name in table if name.startswith(("adc_original_glcm", "t2w_original_glcm")) and name not in size]]
    assert np.median(glcm[np.triu_indices_from(glcm, 1)]) == pytest.approx(0.49, abs=0.05)  # loadings of 0.7 on average
    assert both.corr().abs().to_numpy()[: len(glcm), len(glcm) :].max() < 0.08  # four standard errors


def test_volume_goes_with_what_grows_with_the_tumour_and_with_no_cluster() -> None:
    made = drawn(n=2000, events=600, scanner_effect=0)
    grown = [name for name in made.truth.size_features if name != VOLUME]
    others = made.truth.cluster_features
    assert min(abs(spearmanr(made.table[name], made.table[VOLUME])[0]) for name in grown) > 0.8
    assert max(abs(spearmanr(made.table[name], made.table[VOLUME])[0]) for name in others) < 0.1
    assert association(made.table[VOLUME], planted(made)) > 0.01
    assert not set(grown) & set(others)
    assert made.table[VOLUME].median() == pytest.approx(22_026, rel=0.1)  # mm3: e**10


def test_hazards_stage_and_events_come_out_as_they_were_put_in() -> None:
    made = drawn(n=8000, events=2400, cluster_effect=3)
    worst, table = planted(made) == made.truth.worst, made.table
    X = np.column_stack([worst, planted(made) == 2, table["stage"].map(STAGES.index)]).astype(float)
    hazards = np.exp(PartialLikelihood(X, table["pfs_months"].to_numpy(), table["progressed"].to_numpy() == 1).maximum())
    np.testing.assert_allclose(hazards, [3, 1, made.truth.stage_effect], rtol=0.15)  # about three standard errors
    assert made.truth.observed_events == table["progressed"].sum() == pytest.approx(2400, rel=0.06)
    assert set(made.truth.sizes.values()) == {3200, 2400}
    assert association(table["stage"], worst) < 1e-50
    assert association(table["histology"], planted(made)) > 0.01


def differences(made: SimulatedProfiles) -> pd.Series:
    genes, worst = made.expression.set_index("patient"), planted(made) == made.truth.worst
    return genes[worst].mean() - genes[~worst].mean()


@pytest.mark.parametrize("seed", range(20))
def test_the_linked_genes_and_no_others_change_by_half_as_much_again(seed: int) -> None:
    changed = differences(drawn(seed, separation=1)).abs() > np.log2(1.5)
    assert set(changed.index[changed]) == set(drawn(seed).truth.linked_genes)


def test_genes_vary_the_more_the_less_they_are_expressed_and_all_are_called_by_their_symbols() -> None:
    genes = drawn().expression.drop(columns=["patient", *drawn().truth.linked_genes])
    assert spearmanr(genes.mean(), genes.std())[0] < -0.7
    assert resolve(list(drawn().expression.columns[1:])).counts == {"symbol": 2000}
    assert resolve(list(DRIVERS)).counts == {"symbol": len(DRIVERS)}


def test_the_linked_set_is_the_linked_genes_and_no_other_set_has_one() -> None:
    made = drawn()
    assert set(made.gene_sets[made.truth.linked_set]) == set(made.truth.linked_genes)
    others = [genes for name, genes in made.gene_sets.items() if name != made.truth.linked_set]
    assert not any(set(genes) & set(made.truth.linked_genes) for genes in others)
    assert all(15 <= len(set(genes)) == len(genes) <= 60 for genes in others)
    assert set().union(*others) <= set(made.expression.columns)


def test_one_gene_is_mutated_more_in_the_worst_cluster_and_the_others_alike() -> None:
    made = drawn(n=4000, events=1200)
    worst = planted(made) == made.truth.worst
    mutated = {
        gene: made.table["patient"].isin(rows) for gene, rows in made.mutations.groupby("Hugo_Symbol")["Tumor_Sample_Barcode"]
    }
    shares = mutated[made.truth.linked_mutation][worst].mean(), mutated[made.truth.linked_mutation][~worst].mean()
    assert shares == pytest.approx(made.truth.mutation_frequencies, abs=0.06)  # four standard errors
    others = [mutated[gene] for gene in DRIVERS if gene != made.truth.linked_mutation]
    assert min(fisher_exact(pd.crosstab(worst, one))[1] for one in others) > 0.05 / len(others)
    effective = made.mutations[made.mutations["Variant_Classification"] != "Silent"]
    assert set(effective["Tumor_Sample_Barcode"]) == set(made.table["patient"])


@pytest.mark.parametrize("seed", range(5))
def test_one_protein_is_stained_more_strongly(seed: int) -> None:
    made = drawn(seed, n=600, events=180)
    worst = planted(made) == made.truth.worst
    p = {name: mannwhitneyu(made.proteins[name][worst], made.proteins[name][~worst])[1] for name in made.proteins.columns[1:]}
    assert p.pop(made.truth.linked_protein) < 1e-10
    assert min(p.values()) > 1e-3
    assert set(made.proteins.iloc[:, 1:].to_numpy().ravel()) == {0, 1, 2, 3}


def test_another_effect_changes_what_it_acts_on_in_the_same_patients() -> None:
    one, other = drawn(5), drawn(5, scanner_effect=0, expression_effect=0)
    outcome = ["patient", *ACQUISITION, "stage", "age", "histology", "treatment", "pfs_months", "progressed", VOLUME]
    pd.testing.assert_frame_equal(one.table[outcome], other.table[outcome])
    assert one.truth.clusters == other.truth.clusters
    pd.testing.assert_frame_equal(one.mutations, other.mutations)
    linked = list(one.truth.linked_genes)
    pd.testing.assert_frame_equal(one.expression.drop(columns=linked), other.expression.drop(columns=linked))
    assert differences(other)[linked].abs().max() < 0.6


def test_what_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    made, table = drawn(), tmp_path / "made.csv"
    write_profiles(made, table, force=False)
    paths = profile_paths(table)
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())
    expression = ExpressionSource(path=paths["expression"].name, sample="patient").read(tmp_path)
    np.testing.assert_allclose(expression, made.expression.set_index("patient"))
    pd.testing.assert_frame_equal(pd.read_csv(paths["mutations"], sep="\t", comment="#"), made.mutations)
    sets = [line.split("\t") for line in paths["gene_sets"].read_text().splitlines()]
    assert {name: tuple(genes) for name, _, *genes in sets} == made.gene_sets
    assert json.loads(paths["truth"].read_text())["clusters"] == made.truth.clusters
    features = made.truth.cluster_features
    np.testing.assert_allclose(pd.read_csv(table)[list(features)], made.table[list(features)], rtol=1e-5)


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(
        simulate, ["--kind", "profile", "--n", "40", "--events", "10", "--out", str(folder / "a.csv"), *options]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_writes_every_part_and_repeats_itself(tmp_path: Path) -> None:
    first = run(tmp_path, "--seed", "3", "--scanner-effect", "0.5", "--json")
    assert first.exit_code == 0
    told = json.loads(first.stdout)
    assert told["truth"] == json.loads((tmp_path / "a.truth.json").read_text())
    assert told["truth"]["settings"]["scanner_effect"] == 0.5
    assert all(Path(path).exists() for path in told["files"].values())
    assert "40 (16 in cluster 1, 12 in cluster 2, 12 in cluster 3)" in first.stderr
    before = contents(tmp_path)
    assert run(tmp_path, "--seed", "3", "--scanner-effect", "0.5", "--force").exit_code == 0
    assert contents(tmp_path) == before
    assert run(tmp_path, "--seed", "4", "--scanner-effect", "0.5", "--force").exit_code == 0
    assert all(contents(tmp_path)[name] != content for name, content in before.items())


@pytest.mark.parametrize("name", ["a.maf", "a.expression.csv", "a.truth.json"])
def test_where_one_part_is_there_already_none_is_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    refused = run(tmp_path)
    assert isinstance(refused.exception, InputError)
    assert f"{name} is there already" in str(refused.exception)
    assert contents(tmp_path) == {name: b"mine"}


def test_where_one_part_cannot_be_written_none_is(tmp_path: Path) -> None:
    (tmp_path / "a.maf").mkdir()
    assert isinstance(run(tmp_path, "--force").exception, InputError)
    assert [path.name for path in tmp_path.iterdir()] == ["a.maf"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--correlation", "0.5"], "--correlation says nothing of a profile cohort; leave it out, or ask for --kind composite."),
        (["--gene-effect", "1"], "--gene-effect says nothing of a profile cohort"),
        (["--kind", "composite", "--scanner-effect", "1"], "--scanner-effect says nothing of a composite cohort"),
        (["--separation", "-1"], "--separation -1 should be greater than or equal to 0."),
        (["--n", "5"], "--n 5 should be greater than or equal to 30."),
        (["--events", "40"], "40 events cannot be expected among 40 patients"),
        (["--out", "made.xlsx"], "made.xlsx is no CSV"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_sentence(tmp_path: Path, options: list[str], words: str) -> None:
    refused = run(tmp_path, *options)
    assert isinstance(refused.exception, InputError)
    assert words in str(refused.exception)
    assert not contents(tmp_path)


def test_help_says_how_to_ask_for_no_scanner_effect_and_for_no_clusters() -> None:
    text = CliRunner().invoke(simulate, ["--help"]).stdout
    assert "--kind profile --scanner-effect 0" in text
    assert "--kind profile --separation 0" in text


@pytest.mark.parametrize("name", ["profile_simulated.yaml", "ispy1_profile.yaml"])
def test_a_shipped_study_of_profiles_can_be_read(name: str) -> None:
    assert ProfileStudy(**yaml.safe_load(CONFIG.with_name(name).read_text())).kind == "profile"


def test_the_real_cohort_has_its_features_and_events(data: Path) -> None:
    written = yaml.safe_load(CONFIG.with_name("ispy1_profile.yaml").read_text())
    source = written["cohort"]["source"]
    source["path"] = [str(data / Path(path).relative_to("../../shared/data")) for path in source["path"]]
    cohort = load_cohort(CohortSettings(**written["cohort"]), CONFIG.parent)
    assert cohort.features.shape == (161, 370)  # as the data's own README says
    assert cohort.labels.sum() == 41  # 43 recurrences, of which 41 in five years
    assert written["volume"] in cohort.features
    assert cohort.clinical.columns.tolist() == ["age", "HR_HER2_STATUS", "MRI LD Baseline", "PCR"]
