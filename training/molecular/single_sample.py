"""Scores of gene sets in single patients (ssGSEA); ``group_tests`` tells whether they differ between groups.

References
----------
Barbie et al. 2009, doi:10.1038/nature08460.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from features.signature_scores import enrichment
from training.molecular.gene_sets import among
from training.molecular.two_groups import usable_genes


def single_sample_scores(values: pd.DataFrame, sets: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Enrichment of each set in each patient, by ranks of the genes within the patient.

    Ranks are of all genes that are measured: where some rise, all others fall a little. On a panel of few genes that alone can
    make sets differ between groups that nothing happened to.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_genes)
        Expression, on any scale that keeps the order of a patient's genes. Genes with gaps, and those with the same value in all
        patients, are left out.
    sets : mapping of str to tuple of str
        Of columns of the table, as ``gene_sets.within`` gives them.

    Returns
    -------
    DataFrame of shape (n_patients, n_sets)
        Higher where the genes of the set are higher expressed; not divided by its range.

    Raises
    ------
    InputError
        The values are no complete numbers, or a set has no gene among them, or all.

    Examples
    --------
    >>> table = pd.DataFrame({"CA9": [4.0, 1], "LDHA": [3.0, 2], "X": [2.0, 3], "Y": [1.0, 4]}, index=["P1", "P2"])
    >>> single_sample_scores(table, {"hypoxia": ("CA9",)})["hypoxia"].to_dict()
    {'P1': 2.0, 'P2': -2.0}
    """
    values, _ = usable_genes(values)
    matrix, position = values.to_numpy(), {str(gene): at for at, gene in enumerate(values)}
    found = among(sets, list(position))
    scores = {name: enrichment(matrix, [position[gene] for gene in genes]) for name, genes in found.items()}
    return pd.DataFrame(scores, index=values.index)
