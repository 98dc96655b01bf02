"""The search of all lines at n=118: ours against a loop of lifelines Cox fits over the same lines, and its permutations.

Run: ``python benchmarks/composite.py``. Both are timed in one process, on one thread; what counts is the ratio. The loop is timed
on some of the lines and multiplied, since over all of them it takes a minute.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from training.composite.honest import Biomarkers, permutation_p
from training.composite.logrank import LogRankScorer
from training.composite.rules import SeparatingLine
from training.composite.splits import linear_parts
from training.simulate import SimulationSettings, simulate_cohort

LINES_IN_LOOP = 100


def example(seed: int = 0) -> Biomarkers:
    """A cohort of the size of the paper's, with a real effect."""
    table = simulate_cohort(SimulationSettings(), np.random.default_rng(seed)).table
    values = table[["hypoxic_fraction", "gene_score"]].to_numpy()
    return Biomarkers(values, table["pfs_months"].to_numpy(), table["progressed"].to_numpy(), table["patient"].to_list())


def by_lifelines(data: Biomarkers, parts: np.ndarray) -> np.ndarray:
    """Score statistic of a Cox model per line would be the same; lifelines gives Wald's z of the fitted one."""
    from lifelines import CoxPHFitter

    found = []
    for part in parts:
        frame = pd.DataFrame({"time": data.time, "event": data.event, "high": part.astype(float)})
        found.append(float(CoxPHFitter().fit(frame, "time", "event").summary.loc["high", "z"]))
    return np.array(found)


def fastest(task: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of several runs."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        task()
        took.append(time.perf_counter() - start)
    return min(took)


def main() -> None:
    warnings.simplefilter("ignore")
    data, rule = example(), SeparatingLine()
    parts = linear_parts(data.whole[:, 0], data.whole[:, 1], rule.minimum(len(data)))
    with threadpool_limits(1):
        enumerated = fastest(lambda: linear_parts(data.whole[:, 0], data.whole[:, 1], rule.minimum(len(data))), 5)
        scored = fastest(lambda: LogRankScorer(data.time, data.event).z(parts), 5)
        fitted = fastest(lambda: data.fit(rule), 5)
        permuted = fastest(lambda: permutation_p(rule, data, 999, np.random.default_rng(0)), 1)
        some = parts[np.random.default_rng(0).choice(len(parts), LINES_IN_LOOP, replace=False)]
        loop = fastest(lambda: by_lifelines(data, some), 1) * len(parts) / LINES_IN_LOOP
        alike = np.corrcoef(by_lifelines(data, some), LogRankScorer(data.time, data.event).z(some))[0, 1]
    print(f"{len(parts)} lines, n={len(data)}, {int(data.event.sum())} events")
    print(
        f"enumerating {enumerated * 1000:.0f} ms, scoring {scored * 1000:.1f} ms, whole fit with its line {fitted * 1000:.0f} ms"
    )
    print(f"loop of Cox fits {loop:.0f} s: scoring {loop / scored:.0f} times, whole search {loop / fitted:.0f} times as fast")
    print(f"999 permutations of the whole search {permuted:.2f} s; correlation of the two statistics over lines {alike:.3f}")


if __name__ == "__main__":
    main()
