"""Of several probes of a gene the one with the highest mean, in patients that may be learnt from."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from training.config import load_study
from training.run import draw_held_out, load_cohorts, with_probes_of_development


def test_held_out_patients_have_no_say_in_which_probe_is_taken(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(8, 1, size=(80, 4)), columns=["ERO1L", "ERO1A", "DDIT3", "STC2"])
    frame["ERO1A"] += 1  # the higher in most
    frame.insert(0, "ID", [f"s{number:02d}" for number in range(80)])
    clinical = pd.DataFrame({"ID": frame["ID"], "outcome": np.arange(80) % 2})
    body = {
        "name": "probes",
        "cohort": {
            "source": {"kind": "expression", "path": "genes.csv", "sample": "ID", "clinical": "clinical.csv"},
            "endpoint": {"kind": "binary", "column": "outcome"},
        },
        "model": "probes",
    }
    (tmp_path / "probes.yaml").write_text(yaml.safe_dump(body))
    frame.to_csv(tmp_path / "genes.csv", index=False)
    clinical.to_csv(tmp_path / "clinical.csv", index=False)
    study = load_study(tmp_path / "probes.yaml")
    held_out = draw_held_out(study, load_cohorts(study))
    frame.loc[frame["ID"].isin(held_out), "ERO1L"] = 15.9  # enough to have the highest mean over all samples
    frame.to_csv(tmp_path / "genes.csv", index=False)

    before = load_cohorts(study)
    found = with_probes_of_development(study, before, held_out)[""]
    named = frame.set_index("ID").loc[found.samples]
    np.testing.assert_allclose(before[""].features["ERO1A"], named["ERO1L"])
    np.testing.assert_allclose(found.features["ERO1A"], named["ERO1A"])
    assert any("over development samples alone" in note for note in found.notes)
    assert study.fingerprint == load_study(tmp_path / "probes.yaml").fingerprint
