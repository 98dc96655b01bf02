"""The four groups of patients that two biomarkers make, as Fjeldbo et al. 2020 number them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.survival.contingency import Fourfold, fourfold
from training.survival.curves import LogRank, log_rank

GROUPS = ("hypoxic by both", "by genes only", "by neither", "by imaging only")


@dataclass(frozen=True)
class FourGroups:
    """Patients by what each biomarker calls them.

    Attributes
    ----------
    group : ndarray of shape (n_patients,), int
        1 both, 2 genes only, 3 neither, 4 imaging only.
    table : Fourfold
        Their numbers, and how far the biomarkers agree.
    log_rank : LogRank or None
        Whether the groups' hazards differ; None where all patients are in one group.
    """

    group: np.ndarray
    table: Fourfold
    log_rank: LogRank | None

    def outcomes(self, time: np.ndarray, event: np.ndarray) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Time and event of each group that has patients, by its name: what a Kaplan-Meier plot takes."""
        there = [(number, name) for number, name in enumerate(GROUPS, start=1) if (self.group == number).any()]
        return {name: (time[self.group == number], event[self.group == number]) for number, name in there}


def four_groups(imaging: np.ndarray, genes: np.ndarray, time: np.ndarray, event: np.ndarray) -> FourGroups:
    """Cross two classifications of the same patients.

    Parameters
    ----------
    imaging, genes : ndarray of shape (n_patients,), bool
        Whether each biomarker calls the patient more hypoxic.
    time, event : ndarray of shape (n_patients,)
        Follow-up above zero, 1 for an event.

    Raises
    ------
    InputError
        The outcome cannot be used, or the classes are not one per patient.

    Examples
    --------
    >>> imaging, genes = np.array([True, False, False, True]), np.array([True, True, False, False])
    >>> four_groups(imaging, genes, np.array([1.0, 2, 3, 4]), np.ones(4)).group
    array([1, 2, 3, 4])
    """
    table = fourfold(imaging, genes)
    imaging, genes = np.asarray(imaging, dtype=bool), np.asarray(genes, dtype=bool)
    group = np.select([imaging & genes, genes, ~imaging], [1, 2, 3], default=4)
    several = len(np.unique(group)) > 1
    return FourGroups(group, table, log_rank(time, event, group) if several else None)
