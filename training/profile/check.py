"""What `hypoxia check` says of a study of profiles: the patients, and how many clusters each criterion finds."""

from __future__ import annotations

from typing import Any

from features.audit import audit
from training.console import say, stderr_console
from training.molecular.molecules import by_patient, few_patients, matched_words
from training.profile.model import outcome_of
from training.profile.run import load_profile_data, refuse_what_cannot_be_clustered
from training.profile.study import ProfileStudy
from training.terminal import TerminalProgress, print_audit
from training.tracking import plain


def check_profile(study: ProfileStudy) -> dict[str, Any]:
    """Read the study and its tables, and say what is there; records nothing.

    Raises
    ------
    InputError
        What training would stop at.
    """
    console, data = stderr_console(), load_profile_data(study)
    found = audit(data.cohort)
    print_audit(console, study.name, found)
    with TerminalProgress(console, 0) as progress:
        fitted = refuse_what_cannot_be_clustered(study, data, progress)
    sizes = [int((fitted.clusters.labels == number).sum()) for number in range(len(fitted.clusters.medoids))]
    outcome = outcome_of(data.cohort)
    say(console, "Clusters", f"{len(sizes)} of {', '.join(map(str, sizes))} patients, {int(outcome.event.sum())} with the event")
    if fitted.criteria is not None:
        say(console, "Number of clusters", fitted.criteria.words)
    if fitted.harmonised:
        say(console, "Harmonised", fitted.harmonised)
    warnings = list(found.warnings)
    if study.molecular is not None and data.molecules is not None:
        patients = list(data.cohort.patients)
        known = by_patient(study.molecular, data.molecules, patients)
        say(console, "Matched by name", matched_words(known, patients))
        for words in few_patients(known, patients):
            say(console, "Warning", words, "yellow")
            warnings.append(words)
    best = None if fitted.criteria is None else fitted.criteria.best
    return plain({**found.model_dump(mode="json"), "warnings": warnings, "clusters": sizes, "criteria": best})
