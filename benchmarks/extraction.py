"""Extraction with one worker and with two, and again when nothing changed: ratios of whole commands.

Run: python benchmarks/extraction.py [--cases 12] [--profile bodalal4032a]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

SHAPE = (24, 128, 128)


def write_cases(folder: Path, cases: int) -> None:
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    region = (((z - 12) / 9) ** 2 + ((y - 64) / 40) ** 2 + ((x - 64) / 40) ** 2 < 1).astype(np.uint8)
    rows = []
    for number in range(cases):
        for name, array in (("image", gaussian_filter(rng.normal(size=SHAPE), 1) * 300 + 500), ("mask", region)):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.0, 1.0, 3.0))
            sitk.WriteImage(image, str(folder / f"{number}_{name}.nii.gz"))
        rows.append((f"s{number}", "T2", f"{number}_image.nii.gz", f"{number}_mask.nii.gz"))
    pd.DataFrame(rows, columns=["sample", "sequence", "image", "mask"]).to_csv(folder / "manifest.csv", index=False)


def seconds(folder: Path, profile: str, output: str, workers: int) -> float:
    command = [sys.executable, "-m", "features.cli", "extract", str(folder / "manifest.csv"), "--profile", profile]
    started = perf_counter()
    subprocess.run([*command, "--output", output, "--workers", str(workers)], check=True, stderr=subprocess.DEVNULL)
    return perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--profile", default="bodalal4032a")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_cases(folder, asked.cases)
        one = seconds(folder, asked.profile, "one", 1)
        two = seconds(folder, asked.profile, "two", 2)
        again = seconds(folder, asked.profile, "two", 2)
    print(f"{asked.cases} cases, {asked.profile}: one worker {one:.1f} s, two workers {two:.1f} s, ratio {one / two:.2f}")
    print(f"again over unchanged input: {again:.1f} s, {again / two:.1%} of the first run")


if __name__ == "__main__":
    main()
