"""The log-rank statistic of thousands of parts of one cohort at once, as matrix products."""

from __future__ import annotations

import numpy as np

CHUNK = 8192  # parts per matrix product: 120 patients and 40 event times take 8 MB
# Statistics of two parts that differ by less than this are equal; the sums behind them are in another order.
ROUNDING = 1e-9


class LogRankScorer:
    """Scores parts of a cohort by how much sooner their patients have the event than expected.

    The statistic is observed minus expected events over its hypergeometric standard deviation. Its square is the log-rank
    chi square with one degree of freedom; its sign says which side is worse, so that a maximum over parts is one-sided. It is
    the score statistic of a Cox model too, and unlike a hazard ratio or its Wald test it does not prefer tiny groups, and
    holds where a group has no event.

    Parameters
    ----------
    time : ndarray of shape (n_patients,)
        Follow-up.
    event : ndarray of shape (n_patients,), bool

    References
    ----------
    Mantel 1966, Cancer Chemotherapy Reports 50:163; Peto & Peto 1972, doi:10.2307/2344317.

    Examples
    --------
    >>> scorer = LogRankScorer(np.array([1.0, 2, 3, 4, 5, 6]), np.array([1, 1, 1, 1, 0, 0], dtype=bool))
    >>> scorer.z(np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], dtype=bool)).round(4)
    array([ 2.2476, -2.2476])
    """

    def __init__(self, time: np.ndarray, event: np.ndarray) -> None:
        event = np.asarray(event, dtype=bool)
        times = np.unique(time[event])
        at_risk = (time[:, None] >= times).astype(float)
        events = ((time[:, None] == times) & event[:, None]).sum(axis=0)
        n = at_risk.sum(axis=0)
        spread = events * (n - events) / np.maximum(n - 1, 1)  # hypergeometric, times p (1 - p)
        self._at_risk, self._event = at_risk, event.astype(float)
        # Columns: sum over event times of d p, and of the two terms of d (n - d) / (n - 1) p (1 - p), as functions of n p.
        self._linear = np.column_stack([events / n, spread / n])
        self._square = spread / n**2

    def z(self, parts: np.ndarray) -> np.ndarray:
        """Statistic of each part.

        Parameters
        ----------
        parts : ndarray of shape (n_parts, n_patients), bool
            True for the patients of the part.

        Returns
        -------
        ndarray of shape (n_parts,)
            Positive where the part has more events than expected; 0 where nothing can be said (an empty side).
        """
        return np.concatenate([self._scored(parts[start : start + CHUNK]) for start in range(0, max(len(parts), 1), CHUNK)])

    def permuted(self, rows: np.ndarray) -> LogRankScorer:
        """The same outcomes dealt to the patients anew: patient ``i`` gets the outcome of patient ``rows[i]``."""
        other = object.__new__(LogRankScorer)
        other._at_risk, other._event = self._at_risk[rows], self._event[rows]
        other._linear, other._square = self._linear, self._square
        return other

    def _scored(self, parts: np.ndarray) -> np.ndarray:
        members = parts.astype(float)
        at_risk = members @ self._at_risk
        expected, spread = (at_risk @ self._linear).T
        variance = spread - np.square(at_risk, out=at_risk) @ self._square
        known = variance > ROUNDING
        return np.where(known, (members @ self._event - expected) / np.sqrt(np.where(known, variance, 1)), 0.0)
