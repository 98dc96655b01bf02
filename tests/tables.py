"""Small tables of made-up patients, as a user would keep them."""

import numpy as np
import pandas as pd


def small_table(samples: int = 40) -> pd.DataFrame:
    """Samples s00, s01, ... with an outcome, a patient and two features that have nothing to do with either."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "ID": [f"s{row:02d}" for row in range(samples)],
            "Target": np.arange(samples) % 2,
            "PatientID": [f"p{row:02d}" for row in range(samples)],
            "volume": rng.normal(size=samples),
            "entropy": rng.normal(size=samples),
        }
    )
