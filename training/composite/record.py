"""A composite's result written to MLflow and into the registry, as every model's is."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.bundle import CompositeCard, ModelBundle, ModelCard, Part, ScoreCard, save_bundle
from features.composite import CompositeScore
from features.contract import contract_of
from features.feature import Feature
from features.signatures import gene_aliases
from features.table import FeatureSchema
from training.composite.biomarkers import MODALITIES, MeasuredBiomarkers
from training.composite.report import composite_figures, summary_text, warnings_of, words_of
from training.composite.run import CompositeResult
from training.composite.study import ColumnBiomarker, CompositeStudy, ModelBiomarker, SignatureBiomarker
from training.tracking import (
    BACKGROUND_ROWS,
    GOLDEN_ROWS,
    Recorded,
    Store,
    called_of,
    learnt_from,
    log_numbers,
    register,
    shuffled_quantiles,
    three,
    write_about,
    write_figures,
    write_json,
    write_split_of_everyone,
)


def record_composite(store: Store, run_id: str, result: CompositeResult) -> Recorded:
    """Write a finished result into its run and register the model, with the models that its parts are scores of."""
    study = result.study
    log_numbers(store, run_id, _metrics(result), _parameters(result))
    card = composite_card(result)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        _write_tables(result, folder)
        write_figures(composite_figures(result), folder / "figures")
        (folder / "summary.md").write_text(summary_text(result), encoding="utf-8")
        parts = _part_bundles(result, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        golden = shuffled_quantiles(_complete(result), _schema(result), GOLDEN_ROWS, study.rng("golden rows"))
        save_bundle(composite_bundle(result, card), folder / "bundle", golden, parts)
        store.client.log_artifacts(run_id, str(folder))
    return Recorded(run_id, study.model, register(store, study.model, run_id, card))


def composite_bundle(result: CompositeResult, card: ModelCard) -> ModelBundle:
    """What ships of a result, without its parts."""
    study, learnt, schema = result.study, _complete(result), _schema(result)
    patients = result.cohort.patients.loc[learnt.index]
    settings = study.contract.model_copy(update={"missing": "impute" if study.missing == "alone" else "refuse"})
    return ModelBundle(
        pipeline=result.pipeline,
        schema=schema,
        card=card,
        contract=contract_of(learnt, settings, patients, {}, result.cohort.extraction_hash),
        background=shuffled_quantiles(learnt, schema, BACKGROUND_ROWS, study.rng("background rows")),
    )


def composite_card(result: CompositeResult) -> ModelCard:
    """The card of a result: judged out of fold, since a composite has no held-out patients."""
    study, cohort, rule = result.study, result.cohort, result.chosen.fitted.rule
    called = called_of(cohort) | {"positive_label": "more hypoxic", "negative_label": "less hypoxic"}
    return ModelCard(
        name=study.model,
        **learnt_from(study, cohort),
        **called,
        held_out_patients=0,
        threshold=float(result.evaluation.predictions["threshold"].iloc[0]),
        threshold_origin="the score's cutoff",
        pipeline=words_of(result),
        held_out={},
        internal=result.evaluation.estimates,
        warnings=warnings_of(result),
        score=ScoreCard(name="composite score", cutoff=0.0, words=words_of(result)),
        composite=_how_joined(result, rule),
    )


def _how_joined(result: CompositeResult, rule: CompositeScore) -> CompositeCard:
    study = result.study
    parts = [_part(study, result.measured, which) for which in range(len(MODALITIES))]
    line = None if rule.rule == "both_high" else rule.line
    crossed = [None, None] if line is None else [float(one) if np.isfinite(one) else None for one in line.intercepts]
    return CompositeCard(
        rule=rule.rule,
        parts=(parts[0], parts[1]),
        missing=study.missing,
        theta_degrees=None if line is None else float(np.degrees(line.theta)),
        offset=None if line is None else line.offset,
        x_intercept=crossed[0],
        y_intercept=crossed[1],
        words=words_of(result),
    )


def _part(study: CompositeStudy, measured: MeasuredBiomarkers, which: int) -> Part:
    biomarker, modality, name = study.biomarkers[which], MODALITIES[which], study.names[which]
    about: dict[str, Any] = {"source": f"column {name}", "unit": getattr(biomarker, "unit", None)}
    if isinstance(biomarker, ModelBiomarker):
        component = measured.components[modality]
        scaled = (
            "" if component.card.score else "; on the axis of the rule, log odds in standard deviations of its held-out patients"
        )
        about = {"source": f"score of {component.title}{scaled}", "model": component.name, "version": component.version}
        about["unit"] = None if component.card.score else "probability"
    elif isinstance(biomarker, SignatureBiomarker):
        # The signature's reference values are those of this study, so it is a version of this model.
        about = {"source": f"signature {biomarker.signature}", "model": biomarker.signature, "version": study.fingerprint[:12]}
    return Part(name=name, modality=modality, **about)


def _part_bundles(result: CompositeResult, folder: Path) -> dict[str, Path]:
    """Folders of the models that give a part's value, by the part's name."""
    found = {}
    for biomarker, modality, name in zip(result.study.biomarkers, MODALITIES, result.study.names, strict=True):
        if isinstance(biomarker, ModelBiomarker):
            found[name] = result.measured.components[modality].bundle_folder
        elif isinstance(biomarker, SignatureBiomarker):
            found[name] = folder / modality
            _save_signature(result, biomarker, folder / modality)
    return found


def _save_signature(result: CompositeResult, biomarker: SignatureBiomarker, folder: Path) -> None:
    """A signature with the reference values of the study's patients, as a model by itself."""
    cohort, study = result.cohort, result.study
    fitted = result.measured.signature(biomarker, np.arange(len(cohort.samples)))
    schema = FeatureSchema(features=tuple(map(cohort.table.feature, fitted.columns)))
    learnt = cohort.features[list(fitted.columns)].astype(float)
    threshold = float(fitted.pipeline[-1].predict_proba(np.array([[fitted.cutoff]]))[0, 1])
    card = composite_card(result).model_copy(
        update={
            "name": biomarker.signature,
            "pipeline": fitted.words,
            "threshold": threshold,
            "internal": None,
            "score": ScoreCard(name="signature score", cutoff=fitted.cutoff, words=fitted.words),
            "composite": None,
        }
    )
    bundle = ModelBundle(
        pipeline=fitted.pipeline,
        schema=schema,
        card=card,
        contract=contract_of(learnt, study.contract, cohort.patients, gene_aliases(schema.names), cohort.extraction_hash),
        background=shuffled_quantiles(learnt, schema, BACKGROUND_ROWS, study.rng(f"background rows of {biomarker.signature}")),
    )
    golden = shuffled_quantiles(learnt, schema, GOLDEN_ROWS, study.rng(f"golden rows of {biomarker.signature}"))
    save_bundle(bundle, folder, golden)


def _schema(result: CompositeResult) -> FeatureSchema:
    study = result.study
    null = {"missing": "impute"} if study.missing == "alone" else {}
    features = []
    for biomarker, name in zip(study.biomarkers, study.names, strict=True):
        known = result.cohort.table.feature(name) if isinstance(biomarker, ColumnBiomarker) else Feature(name=name)
        unit = getattr(biomarker, "unit", None)
        features.append(known.model_copy(update={**null, **({"unit": unit} if unit else {})}))
    return FeatureSchema(features=tuple(features))


def _complete(result: CompositeResult) -> pd.DataFrame:
    """Both biomarkers as the model takes them: of a component model its probability."""
    complete, scale = result.biomarkers.dropna(), result.measured.scale
    return complete if scale is None else pd.DataFrame(scale.inverse_transform(complete), complete.index, complete.columns)


def _metrics(result: CompositeResult) -> dict[str, float]:
    logged: dict[str, float] = {"seconds": result.seconds, "permutation_p": result.permutation.p_value}
    for name, estimate in result.evaluation.estimates.items():
        logged |= three(f"internal_{name}", estimate)
    for name, rule in result.rules.items():
        seen = {
            f"{name}_hazard_ratio_apparent_selected_and_biased": rule.apparent.hazard_ratio.value,
            f"{name}_hazard_ratio_cross_validated": rule.out_of_fold.median,
            f"{name}_c_index_cross_validated": rule.out_of_fold.concordance,
        }
        logged |= {key: float(value) for key, value in seen.items() if value is not None and np.isfinite(value)}
    return logged


def _parameters(result: CompositeResult) -> dict[str, str]:
    study, cohort = result.study, result.cohort
    return {
        "samples": str(len(cohort.samples)),
        "events": str(int(cohort.y.sum())),
        "patients": str(cohort.patients.nunique()),
        "seed": str(study.seed),
        "composite": study.composite.kind,
        "imaging": study.names[0],
        "genes": study.names[1],
        "splits_searched": str(result.chosen.fitted.splits_searched),
        "pipeline": words_of(result),
    }


def _write_tables(result: CompositeResult, folder: Path) -> None:
    predictions, samples = result.evaluation.predictions, [str(one) for one in result.cohort.samples]
    write_split_of_everyone(folder, result.cohort)
    write_about(folder, result.study, result.audit, _schema(result))
    write_json(folder / "composite.json", composite_json(result))
    predictions.to_csv(folder / "predictions_internal.csv", index=False)
    typical = result.chosen.out_of_fold.typical
    predictions[predictions["repeat"] == typical].to_csv(folder / "predictions.csv", index=False)
    frequency = pd.Series(result.stability.frequency, index=pd.Index(samples, name="sample"), name="called_more_hypoxic")
    result.biomarkers.set_axis(samples).rename_axis("sample").join(frequency).to_csv(folder / "biomarkers.csv")


def composite_json(result: CompositeResult) -> dict[str, Any]:
    """Everything that a composite's report says, for machines."""
    stable = result.stability
    return {
        "rules": {name: _rule_json(rule) for name, rule in result.rules.items()},
        "permutation": {
            "p_value": result.permutation.p_value,
            "floor": result.permutation.floor,
            "statistic": result.permutation.statistic,
            "permutations": len(result.permutation.null),
            "splits_searched": result.permutation.splits_searched,
            "naive_p_not_to_be_used": result.permutation.naive_p,
        },
        "stability": {
            "resamples": len(stable.fits),
            "theta_degrees": _quantiles(stable.degrees),
            "offset": _quantiles(stable.offset),
            "called_alike": float(np.nanmean(np.maximum(stable.frequency, 1 - stable.frequency))),
            "bootstrap_corrected_hazard_ratio_still_too_high": stable.corrected,
        },
        "cutpoints": {name: vars(one) for name, one in result.cutpoints.items()},
        "groups": {
            **asdict(result.groups.table),
            "log_rank_p": result.groups.log_rank.p_value if result.groups.log_rank else None,
            "spearman": asdict(result.correlation),
        },
        "prognosis": result.prognosis.as_json(),
        "added_over_each_biomarker": {name: vars(one) for name, one in result.added.items()},
        "estimates": {name: one.model_dump() for name, one in result.evaluation.estimates.items()},
    }


def _rule_json(rule: Any) -> dict[str, Any]:
    fitted, out_of_fold = rule.fitted, rule.out_of_fold
    return {
        "apparent_selected_and_biased": {**asdict(rule.apparent.hazard_ratio), "naive_p": rule.apparent.naive_p},
        "cross_validated": {
            "hazard_ratio_median": out_of_fold.median,
            "hazard_ratio_geometric_mean": out_of_fold.geometric_mean,
            "hazard_ratio_range_over_repeats": out_of_fold.range,
            "hazard_ratio_typical_repeat": asdict(out_of_fold.hazard_ratios[out_of_fold.typical]),
            "c_index": out_of_fold.concordance,
            "failures": len(out_of_fold.failures),
        },
        "splits_searched": fitted.splits_searched,
        "patients": fitted.patients,
        "events": fitted.events,
        "flags": fitted.flags,
        "rule": _parameters_of(fitted.rule),
    }


def _parameters_of(rule: CompositeScore) -> dict[str, Any]:
    if rule.rule == "both_high":
        return {"cutoffs": rule.cutoffs_.tolist()}
    line = rule.line
    return {
        "theta_degrees": float(np.degrees(line.theta)),
        "offset": line.offset,
        "slope": line.slope,
        "intercepts": list(line.intercepts),
        "coefficients": rule.coefficients_.tolist(),
        "cutoff": rule.cutoff_,
        "score_sd": rule.score_sd_,
    }


def _quantiles(values: np.ndarray) -> Mapping[str, float] | None:
    if len(values) == 0:
        return None
    return {f"{share:g}": float(np.quantile(values, share)) for share in (0.025, 0.25, 0.5, 0.75, 0.975)}
