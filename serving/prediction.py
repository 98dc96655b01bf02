"""From the body of a request to the body of an answer: reads, has scored and explained, and puts together. No web.

The way of a request in which nothing is wrong is short: plain checks, plain numbers, plain dictionaries. Only when one of them
fails is the request judged again, in full, by `serving.schemas`, to say what is wrong and where.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from features.bundle import RESEARCH_USE_ONLY
from serving.batching import QUICK_S, Batcher, Share
from serving.composite import Components, PartScores, refuse_components
from serving.explainer import Explanation
from serving.predictor import TOO_LARGE, Fault, Path, Predictor, Reading, RowsMismatchError, Scores, UnlikeTrainingError
from serving.schemas import LONGEST_ID, MOST_COMPONENTS, MOST_EXPLAINED, MOST_ROWS, PredictRequest

# Explanations take long: as many as can be made within the deadline of a request may wait for each other.
MOST_EXPLAINING = 8
MOST_FAULTS_OF_ROW = 10
# A key that a client made up comes back in a pointer, but not a megabyte of it.
LONGEST_TOKEN = 200

_FIELDS = frozenset(PredictRequest.model_fields)
_ROW_FIELDS = frozenset({"id", "features", "components"})

T = TypeVar("T")

encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class BusyError(Exception):
    """As many explanations are being made as may be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose envelope is right.

    Attributes
    ----------
    rows : sequence of dict
        Features by name, not yet judged; None for a row of the wrong form.
    ids : sequence of str or None
    components : sequence of dict or None
        Features by component of a composite, of each row; empty if no row has any.
    faults : sequence of Fault
        What is wrong with the form of rows.
    """

    rows: Sequence[Mapping[str, Any] | None]
    ids: Sequence[str | None]
    explain: bool = False
    refuses_unlike: bool = False
    reports_invalid: bool = False
    faults: Sequence[Fault] = ()
    extraction_hash: str | None = None
    components: Sequence[Components | None] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows of a request after scoring.

    Attributes
    ----------
    good : sequence of int
        Rows that were scored, in the order of the share's rows.
    refused : mapping of int to list of Fault
        The others, and why.
    parts : mapping of str to PartScores
        What the components of a composite say, by biomarker.
    """

    matrix: np.ndarray
    good: Sequence[int]
    share: Share
    refused: Mapping[int, list[Fault]]
    parts: Mapping[str, PartScores]

    @property
    def scored(self) -> list[tuple[int, int]]:
        """Row of the request, and its place in the share, of those that are answered with a score."""
        return [(number, place) for place, number in enumerate(self.good) if number not in self.refused]

    @property
    def probabilities(self) -> list[float]:
        """Of the rows that are answered with a score."""
        return self._answered(self.share.scores.probabilities)

    @property
    def positives(self) -> list[bool]:
        """Whether each row that is answered with a score is called positive."""
        return self._answered(self.share.scores.positives)

    @property
    def flags(self) -> list[bool]:
        """Whether each of the good rows, or what a component was sent for it, is unlike the training samples."""
        first = self.share.first
        own = self.share.scores.flagged[first : first + len(self.good)]
        return [flag or bool(self.flagged_parts(row)) for flag, row in zip(own, self.good, strict=True)] if self.parts else own

    def flagged_parts(self, row: int) -> list[str]:
        """Components whose features in a row are unlike their training samples."""
        return [name for name, part in self.parts.items() if part.is_flagged(row)]

    @property
    def flagged(self) -> int:
        """How many scored rows are unlike the training samples."""
        return sum(self.flags)

    def _answered(self, every: list[T]) -> list[T]:
        first = self.share.first
        own = every[first : first + len(self.good)]
        return [own[place] for _, place in self.scored] if self.refused else own


def read_request(body: Any, *, explain: bool = False) -> Asked:
    """Check the form of a parsed body.

    Raises
    ------
    RowsMismatchError
        The envelope is not right, or a row's form is not and none is to be reported by itself.
    """
    if not _is_plain(body):
        return _judged_in_full(body, explain)
    rows = body["rows"]
    return Asked(
        rows=[row.get("features", {}) for row in rows],
        ids=[row.get("id") for row in rows],
        explain=explain or body.get("explain", False),
        refuses_unlike=body.get("out_of_distribution") == "refuse",
        reports_invalid=body.get("invalid_rows") == "report",
        extraction_hash=body.get("extraction_hash"),
        components=_components(rows, ()),
    )


def _components(rows: Sequence[Any], wrong: Collection[int]) -> Sequence[Components | None]:
    """Features by component, of each row that is of the right form; empty if no row has any."""
    found = [None if number in wrong else row.get("components") for number, row in enumerate(rows)]
    return found if any(one is not None for one in found) else ()


def _is_plain(body: Any) -> bool:
    if type(body) is not dict or not body.keys() <= _FIELDS:
        return False
    rows = body.get("rows")
    return (
        type(rows) is list
        and 0 < len(rows) <= MOST_ROWS
        and all(map(_is_plain_row, rows))
        and (len(body) == 1 or _has_plain_options(body))
    )


def _is_plain_row(row: Any) -> bool:
    if type(row) is not dict or not row.keys() <= _ROW_FIELDS:
        return False
    components = row.get("components")
    if type(row.get("features")) is not dict and ("features" in row or components is None):
        return False
    name = row.get("id")
    is_named = name is None or (type(name) is str and len(name) <= LONGEST_ID and _is_text(name))
    return is_named and (components is None or _are_plain_components(components))


def _are_plain_components(components: Any) -> bool:
    return (
        type(components) is dict
        and len(components) <= MOST_COMPONENTS
        and all(one is None or type(one) is dict for one in components.values())
    )


def _is_text(name: str) -> bool:
    """Half a surrogate pair is none: not every client could read it when it came back."""
    return name.isascii() or max(name) < "\ud800" or not any("\ud800" <= one <= "\udfff" for one in name)


def _has_plain_options(body: dict[str, Any]) -> bool:
    return (
        type(body.get("explain", False)) is bool
        and body.get("out_of_distribution", "flag") in ("flag", "refuse")
        and body.get("invalid_rows", "refuse") in ("refuse", "report")
        and _is_short_text(body.get("extraction_hash"))
    )


def _is_short_text(text: Any) -> bool:
    return text is None or (type(text) is str and len(text) <= LONGEST_ID)


def _judged_in_full(body: Any, explain: bool) -> Asked:
    """A body in which something is wrong: all of it, if that is not only with single rows, and those may be reported."""
    faults = faults_of(PredictRequest, body)
    # The numbers are the predictor's to judge, which knows the features.
    faults = [fault for fault in faults if not _is_of_value(fault)]
    of_envelope = [fault for fault in faults if fault.row < 0]
    if of_envelope or body.get("invalid_rows") != "report":
        raise RowsMismatchError(of_envelope + _faults_elsewhere(faults))
    wrong = {fault.row for fault in faults}
    rows = body["rows"]
    return Asked(
        rows=[None if number in wrong else row.get("features", {}) for number, row in enumerate(rows)],
        ids=[_id(row) for row in rows],
        components=_components(rows, wrong),
        explain=explain or body.get("explain", False),
        refuses_unlike=body.get("out_of_distribution") == "refuse",
        reports_invalid=True,
        faults=faults,
        extraction_hash=body.get("extraction_hash"),
    )


def _is_of_value(fault: Fault) -> bool:
    depth = {"features": 3, "components": 4}.get(str(fault.path[2]) if fault.row >= 0 and len(fault.path) > 2 else "")
    return depth is not None and len(fault.path) > depth


def faults_of(form: type[PredictRequest], body: Any) -> list[Fault]:
    """What is wrong with the form of a body."""
    try:
        form.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return [Fault(tuple(fault["loc"]), fault["msg"]) for fault in found]
    return []


def _faults_elsewhere(faults: Sequence[Fault]) -> list[Fault]:
    return [fault for fault in faults if fault.row >= 0]


def _id(row: Any) -> str | None:
    name = row.get("id") if isinstance(row, dict) else None
    return name if isinstance(name, str) and len(name) <= LONGEST_ID and _is_text(name) else None


class Answerer:
    """Answers requests to one version of one model.

    Parameters
    ----------
    predictor : Predictor
    explaining : ThreadPoolExecutor
        Where explanations are made, one at a time, off the event loop.
    """

    def __init__(self, predictor: Predictor, explaining: ThreadPoolExecutor) -> None:
        self.predictor = predictor
        self._explaining = explaining
        self._explanations = 0
        self._batcher = _batcher(predictor)
        components = {} if predictor.composite is None else predictor.composite.components
        self._batchers = {name: _batcher(component) for name, component in components.items()}

    async def judge(self, asked: Asked) -> Judged:
        """Score the rows that are right.

        Raises
        ------
        RowsMismatchError
            A row is not right and the request does not want that reported by itself, or no row is.
        UnlikeTrainingError
            The same, because of what the request wants done with rows that are unlike the training samples.
        """
        _refuse_other_extraction(self.predictor, asked)
        reading, parts = await self._read(asked)
        faults = [*asked.faults, *reading.faults]
        if faults and not (asked.reports_invalid and reading.good):
            raise RowsMismatchError(sorted(faults, key=lambda fault: fault.row))
        share = await self._batcher.score(reading.matrix)
        judged = Judged(reading.matrix, reading.good, share, _by_row(faults), parts)
        return self._without_unusable(judged, asked)

    async def _read(self, asked: Asked) -> tuple[Reading, Mapping[str, PartScores]]:
        """Rows as the model's numbers; what a composite takes from its components is scored first."""
        composite = self.predictor.composite
        if composite is not None:
            request = composite.request(asked.rows, asked.components)
            parts = {}
            for name, vectors in request.vectors.items():
                _refuse_other_extraction(composite.components[name], asked)
                if vectors.rows:
                    share = await self._batchers[name].score(vectors.matrix)
                    parts[name] = PartScores(composite.components[name], vectors, share.scores, share.first)
            return composite.read(request, parts), parts
        if not asked.components:
            return self.predictor.read(asked.rows), {}
        faults = refuse_components(asked.components)
        wrong = {fault.row for fault in faults}
        reading = self.predictor.read([None if number in wrong else row for number, row in enumerate(asked.rows)])
        return replace(reading, faults=[*faults, *reading.faults]), {}

    async def answer(self, asked: Asked) -> tuple[Judged, str]:
        """Score, and explain if that is asked for; the answer as JSON.

        Raises
        ------
        RowsMismatchError
            See `judge`; or more rows are to be explained than may be at a time.
        BusyError
            Too many explanations are waited for.
        """
        if asked.explain and len(asked.rows) > MOST_EXPLAINED:
            reason = f"has more than {MOST_EXPLAINED} rows, and no more are explained at a time"
            raise RowsMismatchError([Fault(("rows",), reason)])
        judged = await self.judge(asked)
        explanations = await self._explained(judged) if asked.explain else {}
        return judged, self._body(asked, judged, explanations)

    def _without_unusable(self, judged: Judged, asked: Asked) -> Judged:
        """Refuse rows that scoring has shown not to be usable."""
        share, count = judged.share, len(judged.good)
        rows = range(share.first, share.first + count)
        probabilities = share.scores.probabilities
        overflown = [row for row in rows if probabilities[row] != probabilities[row]]
        unlike = [row for row, flag in zip(rows, judged.flags, strict=True) if flag] if asked.refuses_unlike else []
        if not overflown and not unlike:
            return judged
        faults = [Fault(("rows", judged.good[row - share.first], "features"), TOO_LARGE) for row in overflown]
        for row in unlike:
            number = judged.good[row - share.first]
            faults += _unlike(share.scores, row, ("rows", number, "features")) if share.scores.flagged[row] else []
            for name in judged.flagged_parts(number):
                part = judged.parts[name]
                faults += _unlike(part.scores, part.places[number], ("rows", number, "components", name))
        refused = {**judged.refused, **_by_row(faults)}
        if not asked.reports_invalid or len(refused) == len(asked.rows):
            every = [fault for number in sorted(refused) for fault in refused[number]]
            raise (RowsMismatchError if overflown or judged.refused else UnlikeTrainingError)(every)
        return replace(judged, refused=refused)

    async def _explained(self, judged: Judged) -> dict[int, Explanation]:
        explainer = self.predictor.explainer
        if explainer is None:
            return {}
        if self._explanations >= MOST_EXPLAINING:
            raise BusyError
        loop = asyncio.get_running_loop()
        self._explanations += 1
        try:
            # Row by row: whoever gave up stops here, and a short request need not wait for the whole of a long one.
            return {
                number: await loop.run_in_executor(self._explaining, explainer.explain, judged.matrix[place])
                for number, place in judged.scored
            }
        finally:
            self._explanations -= 1

    def _body(self, asked: Asked, judged: Judged, explanations: Mapping[int, Explanation]) -> str:
        if not judged.refused:
            predictions = [self._prediction(asked, number, number, judged, explanations) for number in range(len(judged.good))]
        else:
            places = dict(judged.scored)
            predictions = [
                self._prediction(asked, number, places[number], judged, explanations)
                if number in places
                else self._problem(name, judged.refused[number])
                for number, name in enumerate(asked.ids)
            ]
        return encode({**self._head, "predictions": predictions})

    @cached_property
    def _head(self) -> dict[str, Any]:
        model = self.predictor.loaded
        return {
            "model": {"name": model.name, "version": model.version},
            "threshold": self.predictor.threshold,
            "research_use_only": RESEARCH_USE_ONLY,
            "extraction_hash": model.bundle.contract.extraction_hash,
        }

    def _prediction(
        self, asked: Asked, number: int, place: int, judged: Judged, explanations: Mapping[int, Explanation]
    ) -> dict[str, Any]:
        scores, row = judged.share.scores, judged.share.first + place
        called = {"score": scores.raws[row], "label": self.predictor.label(scores.positives[row])}
        composite, placed = self.predictor.composite, scores.placed
        return {
            "id": asked.ids[number],
            "probability": scores.probabilities[row],
            **called,
            "threshold": self.predictor.threshold,
            "model_version": self.predictor.loaded.version,
            "composite": None if composite is None else composite.account(number, judged.matrix[place], called, judged.parts),
            "profile": None if placed is None else placed.account(row),
            "imputed": self._imputed(judged.matrix[place]) if self.predictor.nullable and composite is None else [],
            "replaced": self.predictor.replaced(asked.rows[number] or {}) if self.predictor.levels else [],
            "out_of_distribution": _unlikeness(scores, row, judged.flagged_parts(number)),
            "explanation": explanations[number].answer() if number in explanations else None,
            "problem": None,
        }

    def _imputed(self, row: np.ndarray) -> list[str]:
        return [self.predictor.features[i] for i in np.flatnonzero(np.isnan(row))]

    def _problem(self, name: str | None, faults: list[Fault]) -> dict[str, Any]:
        shown = faults[:MOST_FAULTS_OF_ROW]
        return {
            "id": name,
            "probability": None,
            "score": None,
            "label": None,
            "threshold": self.predictor.threshold,
            "model_version": self.predictor.loaded.version,
            "composite": None,
            "profile": None,
            "imputed": [],
            "replaced": [],
            "out_of_distribution": None,
            "explanation": None,
            "problem": {"detail": f"The row was not scored: it has {counted(len(faults))}.", "errors": answered(shown)},
        }


def _batcher(predictor: Predictor) -> Batcher:
    return Batcher(predictor.score, is_quick=predictor.seconds < QUICK_S)


def _refuse_other_extraction(predictor: Predictor, asked: Asked) -> None:
    wrong = predictor.loaded.bundle.contract.other_extraction(asked.extraction_hash)
    if wrong is not None:
        raise RowsMismatchError([Fault(("extraction_hash",), wrong)])


def _unlikeness(scores: Scores, row: int, parts: Sequence[str]) -> dict[str, Any]:
    """How a row compares with the training samples; a composite's own values do not show it where a component's features are
    unlike its training samples."""
    own = scores.unlikeness(row)
    return {**own, "flagged": True, "drivers": list(dict.fromkeys([*own["drivers"], *parts]))} if parts else own


def _unlike(scores: Scores, row: int, where: Path) -> list[Fault]:
    """Why a row that is unlike the training samples is refused."""
    novelty = scores.novelty
    outside, together = dict(novelty.outside_range(row)), "is, together with the others, far from what the model was trained on"
    faults = [
        (name, f"is {outside[name]} the range that the model was trained on" if name in outside else together)
        for name in novelty.drivers(row)
    ]
    return [Fault((*where, name), reason) for name, reason in faults] or [Fault(where, "are mostly missing")]


def answered(faults: Sequence[Fault]) -> list[dict[str, str]]:
    """Faults as they are answered."""
    return [{"pointer": pointer(fault.path), "detail": fault.reason} for fault in faults]


def counted(faults: int) -> str:
    """Number of faults in words."""
    return "one fault" if faults == 1 else f"{faults} faults"


def pointer(path: Sequence[str | int]) -> str:
    """JSON pointer (RFC 6901) to a place in the body.

    Examples
    --------
    >>> pointer(["rows", 0, "features", "a/b"])
    '/rows/0/features/a~1b'
    """
    tokens = (str(token).replace("~", "~0").replace("/", "~1") for token in path)
    return "".join(f"/{token if len(token) <= LONGEST_TOKEN else token[:LONGEST_TOKEN] + '…'}" for token in tokens)


def _by_row(faults: Sequence[Fault]) -> dict[int, list[Fault]]:
    found: dict[int, list[Fault]] = {}
    for fault in faults:
        found.setdefault(fault.row, []).append(fault)
    return found
