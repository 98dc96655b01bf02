"""Stromal and immune scores of tumours from their expression, by ESTIMATE's gene sets and ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pandas as pd
import yaml

from features.signature_scores import enrichment
from features.signatures import Signature, coverage

SUM = "estimate"


@dataclass(frozen=True)
class Microenvironment:
    """Scores of what is in a tumour beside its own cells.

    Attributes
    ----------
    scores : DataFrame of shape (n_patients, 3)
        ``stromal``, ``immune`` and their sum ``estimate``; higher is more stroma, more immune cells, and less pure tumour.
        Without a unit; they depend on how many genes the table has, and so are compared within a table only.
    notes : tuple of str
        Genes that are not in the table, where these are many.
    """

    scores: pd.DataFrame
    notes: tuple[str, ...]


def stromal_and_immune(expression: pd.DataFrame) -> Microenvironment:
    """Score each patient by where the genes of stroma and of immune cells rank among all genes of the patient.

    The score is the enrichment score of ssGSEA, without a normalisation over samples, as the authors' R package has it. That
    package looks at 10,412 genes that six platforms share; here all genes of the table are ranked, so that values differ from
    its own, and no tumour purity is given, which its authors fitted to Affymetrix arrays on those genes. A missing value
    counts as the gene's mean.

    Parameters
    ----------
    expression : DataFrame of shape (n_patients, n_genes)
        Columns are current gene symbols, or those of 2013; any monotone scale.

    Raises
    ------
    InputError
        Fewer than half of the genes of a set are there.

    References
    ----------
    Yoshihara et al. 2013, doi:10.1038/ncomms3612. Barbie et al. 2009 (ssGSEA), doi:10.1038/nature08460.

    Examples
    --------
    >>> sets = estimate_sets()
    >>> genes = [*sets["stromal"].genes, *sets["immune"].genes, "TP53", "EPCAM"]
    >>> stroma_first = pd.DataFrame([range(len(genes), 0, -1)], columns=genes)
    >>> stromal_and_immune(stroma_first).scores.round().to_numpy().tolist()
    [[144.0, -131.0, 13.0]]
    """
    values = expression.fillna(expression.mean()).dropna(axis="columns")
    held = {name: coverage(one, values.columns) for name, one in estimate_sets().items()}
    matrix = values.to_numpy(dtype=float)
    scores = {name: enrichment(matrix, values.columns.get_indexer(pd.Index(one.columns))) for name, one in held.items()}
    table = pd.DataFrame(scores, index=expression.index)
    return Microenvironment(table.assign(**{SUM: table.sum(axis=1)}), tuple(one.warning for one in held.values() if one.warning))


def has_microenvironment(genes: pd.Index) -> bool:
    """Whether a table has enough genes of both sets to be scored."""
    return all(2 * len(one.found(genes)) >= len(one.genes) for one in estimate_sets().values())


@cache
def estimate_sets() -> dict[str, Signature]:
    """The stromal and the immune genes of ESTIMATE, 141 each.

    Examples
    --------
    >>> {name: len(one.genes) for name, one in estimate_sets().items()}
    {'stromal': 141, 'immune': 141}
    """
    text = files("training.molecular").joinpath("data/estimate.yaml").read_text(encoding="utf-8")
    return {name: Signature(**body) for name, body in yaml.safe_load(text).items()}
