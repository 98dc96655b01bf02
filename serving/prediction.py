"""From the body of a request to the body of an answer: reads, has scored and explained, and puts together. No web.

The way of a request in which nothing is wrong is short: plain checks, plain numbers, plain dictionaries. Only when one of them
fails is the request judged again, in full, by `serving.schemas`, to say what is wrong and where.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import ValidationError

from features.bundle import RESEARCH_USE_ONLY
from serving.batching import QUICK_S, Batcher, Share
from serving.explainer import Explanation
from serving.predictor import TOO_LARGE, Fault, Path, Predictor, RowsMismatchError, UnlikeTrainingError
from serving.schemas import LONGEST_ID, MOST_EXPLAINED, MOST_ROWS, PredictRequest

# Explanations take long: as many as can be made within the deadline of a request may wait for each other.
MOST_EXPLAINING = 8
MOST_FAULTS_OF_ROW = 10
# A key that a client made up comes back in a pointer, but not a megabyte of it.
LONGEST_TOKEN = 200

_FIELDS = frozenset(PredictRequest.model_fields)
_ROW_FIELDS = frozenset({"id", "features"})

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


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows of a request after scoring.

    Attributes
    ----------
    good : sequence of int
        Rows that were scored, in the order of the share's rows.
    refused : mapping of int to list of Fault
        The others, and why.
    """

    matrix: np.ndarray
    good: Sequence[int]
    share: Share
    refused: Mapping[int, list[Fault]]

    @property
    def scored(self) -> list[tuple[int, int]]:
        """Row of the request, and its place in the share, of those that are answered with a score."""
        return [(number, place) for place, number in enumerate(self.good) if number not in self.refused]

    @property
    def probabilities(self) -> list[float]:
        """Of the rows that are answered with a score."""
        first = self.share.first
        every = self.share.scores.probabilities[first : first + len(self.good)]
        return [every[place] for _, place in self.scored] if self.refused else every

    @property
    def flagged(self) -> int:
        """How many scored rows are unlike the training samples."""
        first = self.share.first
        return sum(self.share.scores.flagged[first : first + len(self.good)])


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
        rows=[row["features"] for row in rows],
        ids=[row.get("id") for row in rows],
        explain=explain or body.get("explain", False),
        refuses_unlike=body.get("out_of_distribution") == "refuse",
        reports_invalid=body.get("invalid_rows") == "report",
        extraction_hash=body.get("extraction_hash"),
    )


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
    if type(row) is not dict or not row.keys() <= _ROW_FIELDS or type(row.get("features")) is not dict:
        return False
    name = row.get("id")
    return name is None or (type(name) is str and len(name) <= LONGEST_ID and _is_text(name))


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
    faults = [fault for fault in faults if not (fault.row >= 0 and fault.path[2:3] == ("features",) and len(fault.path) > 3)]
    of_envelope = [fault for fault in faults if fault.row < 0]
    if of_envelope or body.get("invalid_rows") != "report":
        raise RowsMismatchError(of_envelope + _faults_elsewhere(faults))
    wrong = {fault.row for fault in faults}
    rows = body["rows"]
    return Asked(
        rows=[None if number in wrong else row["features"] for number, row in enumerate(rows)],
        ids=[_id(row) for row in rows],
        explain=explain or body.get("explain", False),
        refuses_unlike=body.get("out_of_distribution") == "refuse",
        reports_invalid=True,
        faults=faults,
        extraction_hash=body.get("extraction_hash"),
    )


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
        self._batcher = Batcher(predictor.score, is_quick=predictor.seconds < QUICK_S)

    async def judge(self, asked: Asked) -> Judged:
        """Score the rows that are right.

        Raises
        ------
        RowsMismatchError
            A row is not right and the request does not want that reported by itself, or no row is.
        UnlikeTrainingError
            The same, because of what the request wants done with rows that are unlike the training samples.
        """
        wrong = self.predictor.loaded.bundle.contract.other_extraction(asked.extraction_hash)
        if wrong is not None:
            raise RowsMismatchError([Fault(("extraction_hash",), wrong)])
        reading = self.predictor.read(asked.rows)
        faults = [*asked.faults, *reading.faults]
        if faults and not (asked.reports_invalid and reading.good):
            raise RowsMismatchError(sorted(faults, key=lambda fault: fault.row))
        share = await self._batcher.score(reading.matrix)
        judged = Judged(reading.matrix, reading.good, share, _by_row(faults))
        return self._without_unusable(judged, asked)

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
        unlike = [row for row in rows if share.scores.flagged[row]] if asked.refuses_unlike else []
        if not overflown and not unlike:
            return judged
        faults = [Fault(("rows", judged.good[row - share.first], "features"), TOO_LARGE) for row in overflown]
        for row in unlike:
            faults += self._unlike(row, judged.good[row - share.first], share)
        refused = {**judged.refused, **_by_row(faults)}
        if not asked.reports_invalid or len(refused) == len(asked.rows):
            every = [fault for number in sorted(refused) for fault in refused[number]]
            raise (RowsMismatchError if overflown or judged.refused else UnlikeTrainingError)(every)
        return Judged(judged.matrix, judged.good, share, refused)

    def _unlike(self, row: int, number: int, share: Share) -> list[Fault]:
        novelty = share.scores.novelty
        outside, together = (
            dict(novelty.outside_range(row)),
            "is, together with the others, far from what the model was trained on",
        )
        faults = [
            (name, f"is {outside[name]} the range that the model was trained on" if name in outside else together)
            for name in novelty.drivers(row)
        ]
        where: Path = ("rows", number, "features")
        return [Fault((*where, name), reason) for name, reason in faults] or [Fault(where, "are mostly missing")]

    async def _explained(self, judged: Judged) -> dict[int, Explanation]:
        if self._explanations >= MOST_EXPLAINING:
            raise BusyError
        loop, explain = asyncio.get_running_loop(), self.predictor.explainer.explain
        self._explanations += 1
        try:
            # Row by row: whoever gave up stops here, and a short request need not wait for the whole of a long one.
            return {
                number: await loop.run_in_executor(self._explaining, explain, judged.matrix[place])
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
        probability, flagged = scores.probabilities[row], scores.flagged[row]
        novelty = scores.novelty
        return {
            "id": asked.ids[number],
            "probability": probability,
            "label": self.predictor.label(probability),
            "threshold": self.predictor.threshold,
            "model_version": self.predictor.loaded.version,
            "imputed": self._imputed(judged.matrix[place]) if self.predictor.nullable else [],
            "replaced": self.predictor.replaced(asked.rows[number] or {}) if self.predictor.levels else [],
            "out_of_distribution": {
                "flagged": flagged,
                "distance": scores.distances[row],
                "limit": novelty.limit,
                "outside_range": [{"feature": one, "side": side} for one, side in novelty.outside_range(row)]
                if scores.outside[row]
                else [],
                "drivers": novelty.drivers(row) if flagged else [],
            },
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
            "label": None,
            "threshold": self.predictor.threshold,
            "model_version": self.predictor.loaded.version,
            "imputed": [],
            "replaced": [],
            "out_of_distribution": None,
            "explanation": None,
            "problem": {"detail": f"The row was not scored: it has {counted(len(faults))}.", "errors": answered(shown)},
        }


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
