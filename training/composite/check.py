"""What `hypoxia check` says of a study of a composite: the patients, both biomarkers, and how much would be searched."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.audit import audit
from training.composite.biomarkers import MODALITIES, MeasuredBiomarkers
from training.composite.run import biomarker_data, fit_rules, refuse_what_cannot_be_joined, rules_of
from training.composite.stacked import Stacked
from training.composite.stacked_study import stacked_study
from training.composite.study import CompositeStudy
from training.composite.train import load_biomarkers
from training.console import say, stderr_console
from training.run import draw_held_out
from training.terminal import print_audit
from training.tracking import plain


def check_composite(study: CompositeStudy, uri: str) -> dict[str, Any]:
    """Read the study and its table, and say what is there; trains nothing and records nothing.

    Raises
    ------
    InputError
        What training would stop at.
    """
    if isinstance(study.composite, Stacked):
        return _check_stacked(study, uri)
    console, measured = stderr_console(), load_biomarkers(study, uri)
    found = audit(measured.cohort)
    print_audit(console, study.name, found)
    ranges = _ranges(measured)
    for name, one in ranges.items():
        say(console, name, f"{one['patients']} patients, {one['lowest']:.4g} to {one['highest']:.4g}, median {one['median']:.4g}")
    refuse_what_cannot_be_joined(study, measured)
    fitted, notes = fit_rules(rules_of(study, measured), biomarker_data(study, measured))
    splits = {name: one.splits_searched for name, one in fitted.items()}
    searched = ", ".join(f"{count} by {name.replace('_', ' ')}" for name, count in splits.items())
    say(console, "Splits to be searched", searched)
    for note in notes:
        say(console, "Warning", note, "yellow")
    warnings = [*found.warnings, *notes]
    return plain({**found.model_dump(mode="json"), "warnings": warnings, "biomarkers": ranges, "splits": splits})


def _ranges(measured: MeasuredBiomarkers) -> dict[str, dict[str, Any]]:
    columns = zip(MODALITIES, measured.study.names, measured.of_everyone().T, strict=True)
    found = {}
    for modality, name, values in columns:
        known = values[np.isfinite(values)]
        found[f"{modality} ({name})"] = {
            "patients": len(known),
            "lowest": known.min(),
            "highest": known.max(),
            "median": np.median(known),
        }
    return found


def _check_stacked(study: CompositeStudy, uri: str) -> dict[str, Any]:
    single, cohort, columns = stacked_study(study, uri)
    found = audit(cohort)
    print_audit(stderr_console(), study.name, found)
    draw_held_out(single, {"": cohort})
    return plain(
        {
            **found.model_dump(mode="json"),
            "warnings": found.warnings,
            "features_of": columns,
            "fingerprint": single.fingerprint,  # of the study that is recorded
        }
    )
