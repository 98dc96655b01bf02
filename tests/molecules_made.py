"""Patients of two groups whose truth is known: ten genes, mutations of one gene and one protein go with the second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from features.genes import gene_table

PATIENTS, GENES, PLANTED = 40, 300, 10
SYMBOLS = sorted(symbol for symbol in gene_table().symbols if symbol.isalnum())[5000 : 5000 + GENES]
LINKED = SYMBOLS[:PLANTED]


def write_molecules(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write groups.csv and the four files beside it, and a study that names them; keys of `molecular` may be replaced.

    Samples of the expression and of the variants have barcodes; the first patient has two samples and one of normal tissue.
    """
    rng = np.random.default_rng(seed)
    patients = [f"TCGA-AB-{number:04d}" for number in range(PATIENTS)]
    severe = np.arange(PATIENTS) % 2 == 1
    pd.DataFrame({"patient": patients, "class": np.where(severe, "severe", "mild")}).to_csv(folder / "groups.csv", index=False)

    values = pd.DataFrame(rng.normal(8, 1, size=(PATIENTS, GENES)), columns=SYMBOLS, index=[f"{one}-01A" for one in patients])
    values.loc[severe, LINKED] += 2.5
    twice = values.iloc[[0]].add(1).set_axis([f"{patients[0]}-01B"])
    normal = values.iloc[[0]].add(5).set_axis([f"{patients[0]}-11A"])
    pd.concat([values, twice, normal]).rename_axis("sample").to_csv(folder / "expression.csv")

    others = [SYMBOLS[start : start + 15] for start in range(40, 190, 15)]
    sets = {"LINKED": [*LINKED, *SYMBOLS[200:205]], **{f"OTHER{place}": genes for place, genes in enumerate(others)}}
    lines = ["\t".join([name, "made up", *genes]) for name, genes in sets.items()]
    (folder / "sets.gmt").write_text("\n".join(lines) + "\n")

    hit = rng.uniform(size=(PATIENTS, 12)) < 0.25
    hit[:, 0] = rng.uniform(size=PATIENTS) < np.where(severe, 0.9, 0.05)
    variants = [
        (SYMBOLS[gene], "Missense_Mutation", f"{patients[who]}-01A-11D") for who, gene in zip(*hit.nonzero(), strict=True)
    ]
    variants += [(SYMBOLS[50], "Silent", f"{one}-01A-11D") for one in patients]
    header = ("Hugo_Symbol", "Variant_Classification", "Tumor_Sample_Barcode")
    pd.DataFrame(variants, columns=header).to_csv(folder / "variants.maf", sep="\t", index=False)

    stained = pd.DataFrame(rng.integers(0, 4, size=(PATIENTS, 4)), columns=["HIF1A", "CA9", "P53", "EGFR"])
    stained["HIF1A"] = np.where(severe, 3, 1) - rng.integers(0, 2, PATIENTS)
    stained.assign(patient=patients).to_csv(folder / "proteins.csv", index=False)

    molecular = {
        "expression": {"path": "expression.csv", "sample": "sample"},
        "gene_sets": ["sets.gmt"],
        "mutations": "variants.maf",
        "proteins": "proteins.csv",
        "smallest_set": 5,
        "permutations": 200,
        **changes,
    }
    kept = {name: value for name, value in molecular.items() if value is not None}
    study = {"name": "what lies behind", "seed": seed, "grouping": {"kind": "table", "path": "groups.csv", "column": "class"}}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**study, "molecular": kept}, sort_keys=False))
    return path
