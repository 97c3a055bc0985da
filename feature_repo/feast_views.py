"""Feast's views and values in our words, and back: what a plug-in needs to keep rows of any Feast view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from feature_repo import catalogue
from feature_repo.catalogue import Entity, Field, FieldType, View
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.packed import from_microseconds, to_microseconds
from feature_repo.store import are_texts

feast()  # first, so that what follows does not import Feast the slow way

from feast.protos.feast.types.Value_pb2 import Value  # noqa: E402
from feast.type_map import (  # noqa: E402
    NULL_TIMESTAMP_INT_VALUE,
    feast_value_type_to_python_type,
    python_values_to_proto_values,
)
from feast.value_type import ValueType  # noqa: E402

if TYPE_CHECKING:
    import pyarrow as pa

PROJECT = "troth"
FOREVER = timedelta(days=365_000)  # of a view without a time to live
# Types of Feast that have one of ours; a value of any other is kept as Feast's own bytes.
_OURS: Mapping[Any, tuple[FieldType, str]] = {
    ValueType.STRING: ("text", "string_val"),
    ValueType.BYTES: ("bytes", "bytes_val"),
    ValueType.INT64: ("integer", "int64_val"),
    ValueType.INT32: ("integer_32", "int32_val"),
    ValueType.DOUBLE: ("decimal", "double_val"),
    ValueType.FLOAT: ("decimal_32", "float_val"),
    ValueType.BOOL: ("boolean", "bool_val"),
    ValueType.UNIX_TIMESTAMP: ("timestamp", "unix_timestamp_val"),  # whole seconds: Feast's own resolution
    ValueType.STRING_LIST: ("text_list", "string_list_val"),
    ValueType.BYTES_LIST: ("bytes_list", "bytes_list_val"),
    ValueType.INT64_LIST: ("integer_list", "int64_list_val"),
    ValueType.INT32_LIST: ("integer_32_list", "int32_list_val"),
    ValueType.DOUBLE_LIST: ("decimal_list", "double_list_val"),
    ValueType.FLOAT_LIST: ("decimal_32_list", "float_list_val"),
    ValueType.BOOL_LIST: ("boolean_list", "bool_list_val"),
    ValueType.UNIX_TIMESTAMP_LIST: ("timestamp_list", "unix_timestamp_list_val"),
}


@dataclass(frozen=True)
class Told:
    """How one feature is told: its field, Feast's type, and where the value of a protobuf has it."""

    field: Field
    value_type: Any
    attribute: str | None  # None: kept as Feast's own bytes

    def plain(self, value: Any) -> Any:
        """What is stored, of a Feast value."""
        kind = value.WhichOneof("val")
        if kind is None or kind == "null_val":
            return None
        if self.attribute is None:
            return value.SerializeToString(deterministic=True)
        if kind != self.attribute:
            raise FeatureError(
                f"feature {self.field.name}: expected {self.attribute}, found {kind}. Cast it where it is computed."
            )
        found = getattr(value, kind)
        if self.field.type == "timestamp" and found == NULL_TIMESTAMP_INT_VALUE:
            return None
        if self.attribute.endswith("_list_val"):
            found = list(found.val)
            if self.field.type == "timestamp_list" and NULL_TIMESTAMP_INT_VALUE in found:
                raise FeatureError(
                    f"feature {self.field.name}: expected lists without nulls, found one with. Leave them out."
                )
            return [_time(each) for each in found] if self.field.type == "timestamp_list" else found
        return _time(found) if self.field.type == "timestamp" else found

    def python(self, stored: Any) -> Any:
        """What Feast hands to people, of what is stored; times are cut to its whole seconds."""
        if stored is None:
            return None
        if self.attribute is None:
            return feast_value_type_to_python_type(Value.FromString(stored), self.value_type)
        if self.field.type == "timestamp":
            return stored.replace(microsecond=0)
        if self.field.type == "timestamp_list":
            return [each.replace(microsecond=0) for each in stored]
        return stored

    @property
    def is_as_stored(self) -> bool:
        """Whether what is stored is what people are handed."""
        return self.attribute is not None and not self.field.type.startswith("timestamp")

    def proto(self, stored: Any) -> Any:
        """The Feast value of what is stored."""
        if stored is None:
            return Value()
        if self.attribute is None:
            return Value.FromString(stored)
        if self.attribute.endswith("_list_val"):
            value = Value()
            members = getattr(value, self.attribute)
            members.SetInParent()
            members.val.extend([_seconds(each) for each in stored] if self.field.type == "timestamp_list" else stored)
            return value
        told: dict[str, Any] = {self.attribute: _seconds(stored) if self.field.type == "timestamp" else stored}
        return Value(**told)


@dataclass(frozen=True)
class Bound:
    """A Feast view, as we keep it. `key_types`: Feast's types of the join keys."""

    view: View
    told: Mapping[str, Told]

    def table(self, given: "pa.Table") -> "pa.Table":
        """A table as our columns: what has no type of ours as Feast's own bytes."""
        import pyarrow as pa

        for each in self.told.values():
            if each.attribute is None and each.field.name in given.column_names:
                place = given.column_names.index(each.field.name)
                values = python_values_to_proto_values(given[each.field.name].to_pylist(), each.value_type)
                stored = pa.array([each.plain(value) for value in values], pa.binary())
                given = given.set_column(place, each.field.name, stored)
        return given


class Views:
    """Feast views as ours, each worked out once."""

    def __init__(self) -> None:
        self._known: dict[Any, Bound] = {}

    def of(self, project: str, table: Any) -> Bound:
        """A view of the catalogue as it stands there; any other as Feast describes it."""
        key = (project, table.name, tuple((each.name, each.dtype) for each in table.features), _age(table))
        bound = self._known.get(key)
        if bound is None:
            bound = self._known[key] = _bound(project, table)
        return bound


def _bound(project: str, table: Any) -> Bound:
    types = {each.name: each.dtype.to_value_type() for each in table.features}
    ours = {each.name: each for each in (*catalogue.VIEWS, *catalogue.INDEXES)} if project == PROJECT else {}
    view = ours.get(table.name)
    if view is None:
        keys = tuple(each.name for each in table.entity_columns)
        source = table.batch_source
        view = View(
            name=table.name,
            table=table.name,
            entity=Entity("+".join(keys), keys, "As Feast says."),
            description=table.description,
            fields=tuple(Field(name, _OURS.get(kind, ("bytes", None))[0], "") for name, kind in types.items()),
            time_to_live=table.ttl or FOREVER,
            is_personal=str(table.tags.get("personal", "")).lower() == "true",
            event_column=source.timestamp_field if source is not None and source.timestamp_field else "event_timestamp",
        )
    by_name = {each.name: each for each in view.online_fields}
    told = {
        name: Told(by_name[name], kind, _OURS[kind][1] if kind in _OURS else None)
        for name, kind in types.items()
        if name in by_name
    }
    return Bound(view, told)


def _age(table: Any) -> Any:
    return table.ttl, table.tags.get("personal")


def key_texts(values: Sequence[Any]) -> Sequence[Any]:
    """Values of an entity key as they are stored."""
    return values if are_texts(values) else [each if type(each) is str else _text(each) for each in values]


def key_values(view: View, key: Any) -> list[Any]:
    """The parts of a Feast entity key, as they are stored, in the order of the view's join keys."""
    given = dict(zip(key.join_keys, key.entity_values, strict=True))
    found = {name: getattr(value, value.WhichOneof("val") or "null_val") for name, value in given.items()}
    return [_text(found.get(name)) for name in view.entity.join_keys]


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.hex() if isinstance(value, bytes) else value


def _time(seconds: int) -> datetime:
    return from_microseconds(seconds * 1_000_000)


def _seconds(at: datetime) -> int:
    return to_microseconds(at) // 1_000_000


def aware(at: datetime) -> datetime:
    """A time with its zone; without one it is UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)
