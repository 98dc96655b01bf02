"""What a study of profiles found, as tables of numbers: one for each file of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from training.profile.run import ProfileResult


def clusters_of_patients(result: ProfileResult) -> pd.DataFrame:
    """One row per patient: cluster (from 1), distance from its medoid, margin to the second nearest, medoid or not."""
    cohort, last = result.cohort, result.fitted.last
    found = last.assign(result.fitted.z.to_numpy())
    medoid = np.zeros(len(found.cluster), dtype=bool)
    medoid[result.fitted.clusters.medoids] = True
    return pd.DataFrame(
        {
            "sample": cohort.samples.astype(str),
            "patient": cohort.patients.to_numpy(),
            "cluster": found.cluster + 1,
            "distance": found.distances.min(axis=1),
            "margin": found.margin,
            "medoid": medoid,
        }
    )


def clusters_side_by_side(result: ProfileResult) -> pd.DataFrame:
    """One row per cluster: patients, events, share of events or risk by the horizon, median time, stability."""
    fared, last = result.outcome.clusters.table, result.fitted.last
    table = fared[["patients", "events"]].astype(int).assign(share_with_event=fared["share"])
    if result.cohort.times is not None:
        table = table.assign(risk_by_horizon=last.risks_, median_time=fared["median"])
    stable = result.stability.table
    return table.assign(**{f"{name}": stable[name].to_numpy() for name in ("jaccard", "dissolved", "consensus")})


def named_tables(result: ProfileResult) -> dict[str, pd.DataFrame]:
    """Every table of a run by the name of its file."""
    fared = result.outcome
    tables = {
        "clusters": clusters_of_patients(result).set_index("sample"),
        "clusters_side_by_side": clusters_side_by_side(result),
        "criteria": result.criteria.table,
        "features_ranked": result.ranking.table,
        "sequences": result.ranking.shares("sequence"),
        "families": result.ranking.shares("family"),
        "associations": result.associations.table.set_index("column"),
        "table2": result.associations.table2,
        "pairwise": fared.clusters.pairwise,
    }
    if fared.combined is not None:
        tables |= {"groups_side_by_side": fared.combined.table}
    if fared.hazards is not None:
        fits = {"cox": fared.hazards.alone, "cox_adjusted": fared.hazards.adjusted}
        tables |= {name: fit.table for name, fit in fits.items() if fit is not None}
    if result.volume is not None:
        tables["volume"] = result.volume.table
    return tables


def profile_json(result: ProfileResult) -> dict[str, Any]:
    """Everything that the report of profiles says, for machines."""
    choice, fared = result.choice, result.outcome
    return {
        "clusters": _records(clusters_side_by_side(result)),
        "number_of_clusters": len(result.names),
        "chosen_by": result.chosen_by,
        "loss": result.fitted.clusters.loss,
        "harmonised": result.fitted.harmonised,
        "criteria": {
            "best": result.criteria.best,
            "agree": result.criteria.agree,
            "words": result.criteria.words,
            "table": _records(result.criteria.table),
        },
        "stability": {"words": result.stability.words, "ambiguous_pairs": result.stability.ambiguous},
        "features": {
            "strong": int((result.ranking.table["interval"] == "strong").sum()),
            "moderate": int((result.ranking.table["interval"] == "moderate").sum()),
            "first": _records(result.ranking.table.head(20)),
            "sequences": _records(result.ranking.shares("sequence")),
            "families": _records(result.ranking.shares("family")),
        },
        "volume": None if result.volume is None else _volume_json(result),
        "associations": _records(result.associations.table),
        "not_tested": _records(result.associations.not_tested),
        "outcome": {
            "overall": asdict(fared.clusters.overall),
            "pairwise": _records(fared.clusters.pairwise),
            "groups": None if fared.combined is None else _records(fared.combined.table),
            "groups_overall": None if fared.combined is None else asdict(fared.combined.overall),
            "hazard_ratio": None if fared.hazards is None or fared.hazards.ratio is None else asdict(fared.hazards.ratio),
            "cox": None if fared.hazards is None or fared.hazards.alone is None else _records(fared.hazards.alone.table),
            "cox_adjusted": _adjusted_json(result),
            "notes": list(fared.notes),
        },
        "choice": {
            "exploratory": choice.exploratory,
            "reasons": list(choice.reasons),
            "test": choice.test,
            "permutation_p": choice.p_value,
            "floor": choice.floor,
            "permutations": len(choice.null),
            "naive_p": choice.naive_p,
            "words": choice.words,
        },
        "out_of_sample": {name: one.model_dump() for name, one in result.evaluation.estimates.items()},
        "molecular": None if result.molecular is None else result.molecular.as_json(),
    }


def _volume_json(result: ProfileResult) -> dict[str, Any]:
    volume = result.volume
    assert volume is not None  # noqa: S101 - asked for where there is one
    return {
        "words": volume.words,
        "little_more": volume.little_more,
        "adjusted_rand_of_volume_alone": volume.adjusted_rand,
        "agreement": volume.agreement,
        "between_clusters": asdict(volume.difference),
        "share_of_features_related": volume.related,
        "share_of_strong_features_related": volume.related_strong,
        "missing": volume.missing,
    }


def _adjusted_json(result: ProfileResult) -> dict[str, Any] | None:
    hazards = result.outcome.hazards
    if hazards is None or hazards.adjusted is None:
        return None
    return {"patients": hazards.adjusted.n, "events": hazards.adjusted.events, "table": _records(hazards.adjusted.table)}


def _records(table: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Rows as mappings, with the index where that is more than a count."""
    named = (
        table
        if isinstance(table.index, pd.RangeIndex) and not table.index.name
        else table.reset_index(names=table.index.name or "name")
    )
    return [{str(name): value for name, value in row.items()} for row in named.to_dict("records")]
