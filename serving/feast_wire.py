"""What Feast's own feature server is asked and answers at `/get-online-features`, read through the gate.

Spoken as Feast 0.67 speaks it, so that its clients move by changing an address; imports nothing of Feast. Where it differs: a refused
subject is INVALID, a row too old OUTSIDE_MAX_AGE, features stand in the catalogue's order, personal views answer to a service alone, and
of a service with several views `event_timestamps` tells the newest row of the entity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from feature_repo.catalogue import SERVICES, VIEWS, Field, Service, View
from feature_repo.column_reads import Columns, read_columns
from feature_repo.packed import from_microseconds
from feature_repo.reads import NOT_FOUND, PRESENT, Source
from serving.feature_reads import MOST_ENTITIES
from serving.problems import ProblemError
from serving.requests import MOST_TEXT, Text

MOST_FEATURES = 500
REFUSED, NEVER = "INVALID", "1970-01-01T00:00:00Z"
_ROWLESS = (None, NOT_FOUND)
_Key = Annotated[str, msgspec.Meta(max_length=MOST_TEXT)] | int
# A view that is not personal may be read by name: it is nobody's.
_OPEN = {view.name: Service(view.name, view.description, (view,), None) for view in VIEWS if not view.is_personal}
_SERVICES = {each.name: each for each in SERVICES}
_VIEWS = {view.name: view for view in VIEWS}
# What Feast's clients raise for a problem of ours, by status.
_CLASSES = {401: "FeastPermissionError", 403: "FeastPermissionError", 404: "FeastObjectNotFoundException"}


class OnlineRequest(msgspec.Struct, frozen=True):
    """A service or `view:feature` names, and entities in columns by join key."""

    entities: Annotated[
        dict[Text, Annotated[list[_Key], msgspec.Meta(max_length=MOST_ENTITIES)]],
        msgspec.Meta(min_length=1, max_length=10),
    ]
    feature_service: Text | None = None
    features: Annotated[list[Text], msgspec.Meta(max_length=MOST_FEATURES)] = []
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class FeatureViewMetadata(msgspec.Struct, frozen=True):
    name: str


class OnlineMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the results are of, in their order."""

    feature_names: list[str]
    feature_view_metadata: list[FeatureViewMetadata] = []


class FeatureVector(msgspec.Struct, frozen=True):
    """One feature or join key of all entities."""

    values: Sequence[Any]
    statuses: list[str]
    event_timestamps: list[str]


class OnlineAnswer(msgspec.Struct, frozen=True):
    """Join keys, then features."""

    results: list[FeatureVector]
    metadata: OnlineMetadata


@dataclass(frozen=True)
class Reading:
    """One read through the gate: for a service of the catalogue, or of one view that is not personal."""

    use: Service
    features: Sequence[tuple[View, Field]]


def readings(asked: OnlineRequest) -> list[Reading]:
    """What has to be read for a request. Raises: ProblemError 400, 403 or 404."""
    if asked.feature_service is not None:
        use = _SERVICES.get(asked.feature_service)
        if use is None:
            raise ProblemError(404, "no_such_service", "feature_service: expected one of the catalogue, found another.")
        return [Reading(use, [(view, each) for view in use.views for each in view.fields])]
    if not asked.features:
        raise ProblemError(400, "bad_request", "features: expected some, or a feature_service, found none. Name them.")
    wanted: dict[str, list[tuple[View, Field]]] = {}
    for each in dict.fromkeys(asked.features):
        view_name, colon, name = each.partition(":")
        view = _VIEWS.get(view_name)
        if not colon:
            raise ProblemError(400, "bad_request", "features: expected view:feature names, found another form.")
        field = None if view is None else next((each for each in view.fields if each.name == name), None)
        if view is None or field is None:
            raise ProblemError(404, "no_such_feature", "features: expected some of the catalogue, found another.")
        if view_name not in _OPEN:
            raise ProblemError(
                403,
                "purpose_not_allowed",
                f"feature view {view_name}: expected a feature_service that has it, found features asked for by name. "
                "Ask for such a service: it names the purpose.",
            )
        wanted.setdefault(view_name, []).append((view, field))
    return [Reading(_OPEN[name], features) for name, features in wanted.items()]


def ask_online(source: Source, asked: OnlineRequest, plan: Sequence[Reading], at: datetime) -> tuple[OnlineAnswer, list[Columns]]:  # fmt: skip
    """What Feast's server would answer, and the answers of the gate it was made from, by reading. Raises: ProblemError 400."""
    columns = {name: list(map(str, values)) for name, values in asked.entities.items()}
    counts = {len(values) for values in columns.values()}
    if len(counts) != 1 or counts == {0}:
        raise ProblemError(400, "bad_request", "entities: expected columns of one length, found others. Fill them up.")
    count = counts.pop()
    names = list(asked.entities)
    vectors = [
        FeatureVector(list(values), [PRESENT] * count, [NEVER] * count) for values in asked.entities.values()
    ]  # as Feast does: what was asked is said again
    answers: list[Columns] = []
    for reading in plan:
        keys = reading.use.entity.join_keys
        if missing := [key for key in keys if key not in columns]:
            raise ProblemError(400, "bad_request", f"entities: expected {list(keys)}, found no {missing}. Add them.")
        found = read_columns(source, reading.use, columns, at)
        answers.append(found)
        spelled = {each: NEVER if each is None else _spelled(from_microseconds(each)) for each in set(found.newest_us)}
        newest = [spelled[each] for each in found.newest_us]
        statuses, times = {}, {}
        for of_view, said in found.statuses.items():
            statuses[of_view] = [REFUSED if each is None else each for each in said]
            times[of_view] = [NEVER if each in _ROWLESS else time for time, each in zip(newest, said, strict=True)]
        for view, field in reading.features:
            name = field.name
            names.append(f"{view.name}__{name}" if asked.full_feature_names else name)
            values = found.features[name]
            if field.type == "timestamp":  # whole seconds on Feast's wire
                values = [None if value is None else int(value.timestamp()) for value in values]
            vectors.append(FeatureVector(values, statuses[view.name], times[view.name]))
    views = [FeatureViewMetadata(view.name) for reading in plan for view in reading.use.views]
    versions = views if asked.include_feature_view_version_metadata else []
    return OnlineAnswer(vectors, OnlineMetadata(names, versions)), answers


def fault(problem: ProblemError) -> bytes:
    """A problem as Feast's clients read one: JSON in a JSON string, naming the exception they raise."""
    details = problem.details
    told = {
        "module": "feast.errors",
        "class": _CLASSES.get(details.status, "FeastError"),
        "message": details.detail,
    }
    return msgspec.json.encode(msgspec.json.encode(told).decode())


def _spelled(at: datetime) -> str:
    text = at.astimezone(UTC).isoformat()[:19]
    if at.microsecond % 1_000:
        return f"{text}.{at.microsecond:06d}Z"
    return f"{text}.{at.microsecond // 1_000:03d}Z" if at.microsecond else f"{text}Z"
