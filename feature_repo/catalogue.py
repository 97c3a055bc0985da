"""Every view, feature and feature service, and the purpose of each: their one home.

Plain data. Feast objects (`definitions.py`), online rows (`store.py`) and gated reads (`reads.py`) all follow from it,
so that answering a question imports neither Feast nor Polars.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Literal

from feature_repo.errors import FeatureError

FieldType = Literal[
    "text", "integer", "decimal", "boolean", "timestamp", "bytes", "integer_32", "decimal_32",
    "text_list", "integer_list", "decimal_list", "boolean_list", "timestamp_list", "bytes_list", "integer_32_list", "decimal_32_list",
]  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One feature: its name, type and meaning."""

    name: str
    type: FieldType
    description: str


@dataclass(frozen=True)
class Entity:
    """What a view speaks about: the columns that together are its key, in the order the key is written."""

    name: str
    join_keys: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class View:
    """One feature view over one published table. `time_to_live` is how old a row may be and still answer; `lag_limit` how old what the
    view knows may be before somebody is woken, long before rows stop answering.

    `added_fields` stand beside the features online and come from other tables; `publish.py` says which.
    """

    name: str
    table: str
    entity: Entity
    description: str
    fields: tuple[Field, ...]
    time_to_live: timedelta
    is_personal: bool
    event_column: str = "feature_at"
    added_fields: tuple[Field, ...] = ()
    is_feature: bool = True  # False: an index that answers need, kept in the online store but no feature for models
    lag_limit: timedelta | None = None  # None: of a view that is nobody's of ours
    mark_column: str | None = (
        None  # says the same in every row of the table, and is kept once, with the published version
    )

    @cached_property
    def online_fields(self) -> tuple[Field, ...]:
        return (*self.fields, *self.added_fields)


@dataclass(frozen=True)
class Service:
    """One use of features. A personal one names the purpose (and channel) that standing is asked for."""

    name: str
    description: str
    views: tuple[View, ...]
    purpose_code: str | None
    channel_code: str = "*"
    entity: Entity = field(init=False)

    def __post_init__(self) -> None:
        entities = {view.entity for view in self.views}
        if len(entities) != 1:
            raise FeatureError(
                f"feature service {self.name}: expected views of one entity, "
                f"found {sorted(entity.name for entity in entities)}. Make one service per entity."
            )
        if self.is_personal != (self.purpose_code is not None):
            raise FeatureError(
                f"feature service {self.name}: expected a purpose exactly where a view is personal, "
                f"found {self.purpose_code} and {'a' if self.is_personal else 'no'} personal view. Name the purpose."
            )
        names = [each.name for view in self.views for each in view.online_fields]
        if len(names) != len(set(names)):
            raise FeatureError(
                f"feature service {self.name}: expected each feature once, found {sorted(names)}. Rename one."
            )
        object.__setattr__(self, "entity", self.views[0].entity)

    @property
    def is_personal(self) -> bool:
        return any(view.is_personal for view in self.views)


CUSTOMER = Entity("customer", ("customer_id",), "A resolved customer profile.")
SKU_LOCATION = Entity("sku_location", ("sku", "location_code"), "An item at a store or distribution centre.")
PRODUCT = Entity("product", ("sku",), "An item, everywhere.")
IDENTITY = Entity("identity", ("identity_ref",), "The token of an identifier: e-mail, phone, card, account, device.")

# Windows count back from the row's `feature_at`. A row is written at least daily, so a week without one means that
# something is broken. Availability is near-time: with the daily close alone it is a day old when the next one comes.
DAILY = timedelta(days=7)
NEAR_TIME = timedelta(days=2)
# What is late: a day's close that is six hours behind, and stock that two cycles of 15 minutes and the stream between them left as it was.
DAILY_LAG = timedelta(hours=30)
NEAR_TIME_LAG = timedelta(minutes=30)

CUSTOMER_PURCHASES = View(
    name="customer_purchases",
    table="ftr_customer_purchases",
    entity=CUSTOMER,
    description="What a customer bought, over windows. One row per customer and feature time.",
    fields=(
        Field("order_count_30d", "integer", "Orders in 30 days."),
        Field("order_count_90d", "integer", "Orders in 90 days."),
        Field("net_cents_90d", "integer", "Net spend in 90 days, in cents."),
        Field("average_order_cents_90d", "integer", "Net spend per order in 90 days, in cents; null without orders."),
        Field("unit_count_90d", "integer", "Units bought in 90 days."),
        Field("return_count_90d", "integer", "Lines brought back in 90 days."),
        Field("days_since_last_order", "integer", "Whole days since the last order; null if there was none."),
        Field("store_order_share_90d", "decimal", "Share of the orders of 90 days placed in a store, 0 to 1."),
        Field("favourite_category_name", "text", "Category with the most units in 90 days."),
    ),
    time_to_live=DAILY,
    lag_limit=DAILY_LAG,
    is_personal=True,
)
CUSTOMER_ENGAGEMENT = View(
    name="customer_engagement",
    table="ftr_customer_engagement",
    entity=CUSTOMER,
    description="What a customer did in web and app, over windows. One row per customer and feature time.",
    fields=(
        Field("view_count_30d", "integer", "Products viewed in 30 days."),
        Field("search_count_30d", "integer", "Searches in 30 days."),
        Field("cart_count_30d", "integer", "Products added to the cart in 30 days."),
        Field("days_since_last_visit", "integer", "Whole days since the last event; null if there was none."),
        Field("main_device_type", "text", "Device with the most events in 30 days."),
    ),
    time_to_live=DAILY,
    lag_limit=DAILY_LAG,
    is_personal=True,
)
_AVAILABLE = "On hand less all that is not to be had: damaged, in quality control, committed, safety, protected. Never below zero; holds are live and not in it."
SKU_LOCATION_AVAILABILITY = View(
    name="sku_location_availability",
    table="ftr_sku_location_availability",
    entity=SKU_LOCATION,
    description="Stock and recent sales of an item at a location. One row per item and location.",
    fields=(
        Field("on_hand_units", "integer", "Units on hand, from movements; negative when more was booked out than in."),
        Field("available_units", "integer", _AVAILABLE),
        Field("sold_units_28d", "integer", "Units sold in 28 days."),
        Field("days_since_last_movement", "integer", "Whole days since the last stock movement."),
        Field("has_stock", "boolean", "At least one unit is available."),
    ),
    time_to_live=NEAR_TIME,
    lag_limit=NEAR_TIME_LAG,
    is_personal=False,
)
PRODUCT_POPULARITY = View(
    name="product_popularity",
    table="ftr_product_popularity",
    entity=PRODUCT,
    description="Demand for an item over all locations, over windows. One row per item and feature time.",
    fields=(
        Field("sold_units_7d", "integer", "Units sold in 7 days."),
        Field("sold_units_28d", "integer", "Units sold in 28 days."),
        Field("order_count_28d", "integer", "Orders with the item in 28 days."),
        Field("return_rate_28d", "decimal", "Units brought back per unit sold in 28 days; null without sales."),
        Field("view_count_28d", "integer", "Product views in 28 days."),
    ),
    time_to_live=DAILY,
    lag_limit=DAILY_LAG,
    is_personal=False,
)

# What standing is asked for, each a pair of columns of `ftr_subject_standing`. Marketing is asked per channel.
STANDING_SLOTS = (
    "service",
    "personalization",
    "analytics",
    "model_training",
    "profile_unification",
    "third_party_sharing",
    "marketing_email",
    "marketing_sms",
    "marketing_push",
    "marketing_post",
    "marketing_in_app",
    "marketing_onsite",
)


@lru_cache(maxsize=256)
def standing_slot(purpose_code: str, channel_code: str) -> str | None:
    """The slot that holds standing for a purpose over a channel (`*`: asked without one); None when there is none."""
    slot = purpose_code if channel_code == "*" else f"{purpose_code}_{channel_code}"
    return slot if slot in STANDING_SLOTS else None


SUBJECT_STANDING = View(
    name="subject_standing",
    table="ftr_subject_standing",
    entity=CUSTOMER,
    description="What a customer's data may be used for, and why. One row per customer.",
    fields=(
        *(
            field_of_slot
            for slot in STANDING_SLOTS
            for field_of_slot in (
                Field(f"is_{slot}_allowed", "boolean", f"Use for {slot} is allowed."),
                Field(f"reason_{slot}", "text", f"Why use for {slot} is allowed or not."),
            )
        ),
    ),
    time_to_live=DAILY,
    lag_limit=DAILY_LAG,
    is_personal=True,
    mark_column="ledger_size",
    added_fields=tuple(
        Field(f"expires_{slot}_at", "timestamp", f"When the grant for {slot} ends; null if it does not.")
        for slot in STANDING_SLOTS
    ),
)
# The same in short, for the gate of every personal read: one whole number a slot, from which answer and reason are had at once. Until
# when, in microseconds since 1970, and in the last eight bits why (`REASONS`): from FOREVER a yes that does not end, below nought a no.
FOREVER, NEVER, REASON_BITS = 1 << 62, -(1 << 62), 255
REASONS = (
    "granted", "contract", "not_opted_out", "notice_given", "never_asked", "refused", "withdrawn", "objected", "gpc", "restricted",
    "erased", "expired", "stale_notice", "unconfirmed", "unknown_purpose", "unknown_channel", "ledger_unreadable",
)  # fmt: skip
SUBJECT_GATE = View(
    name="subject_gate",
    table="ftr_subject_standing",
    entity=CUSTOMER,
    description="What a customer's data may be used for, in short. One row per customer.",
    fields=(*(Field(slot, "integer", f"Until when use for {slot} is allowed, and why.") for slot in STANDING_SLOTS),),
    time_to_live=DAILY,
    lag_limit=DAILY_LAG,
    is_personal=True,
    mark_column="ledger_size",
    is_feature=False,
)
AVAILABILITY = View(
    name="availability",
    table="availability",
    entity=SKU_LOCATION,
    description="The parts of availability. One row per item and location.",
    fields=(
        Field("on_hand_units", "integer", "Units on hand, from movements."),
        Field("committed_units", "integer", "Units of open orders allocated here and not yet picked or shipped."),
        Field("safety_units", "integer", "Units kept back."),
        Field("available_units", "integer", _AVAILABLE),
        Field("last_movement_at", "timestamp", "Newest stock movement; null if there was none."),
    ),
    time_to_live=NEAR_TIME,
    lag_limit=NEAR_TIME_LAG,
    is_personal=False,
    event_column="as_of_at",
    is_feature=False,
)
CUSTOMER_CONTEXT = View(
    name="customer_context",
    table="customers",
    entity=CUSTOMER,
    description="Where a customer shops and what they bought last. One row per customer.",
    fields=(
        Field("home_location_code", "text", "Location the customer shops at most; null if there is none."),
        Field("recent_skus", "text", "Items bought last, newest first, one a line."),
    ),
    time_to_live=DAILY,
    lag_limit=DAILY_LAG,
    is_personal=True,
    is_feature=False,
)
CUSTOMER_IDENTITY = View(
    name="customer_identity",
    table="customer_identities",
    entity=IDENTITY,
    description="Whose an identifier is, by links of its owner alone, no contacts. One row per identifier token.",
    fields=(Field("customer_id", "text", "The customer; null where the links name more than one."),),
    time_to_live=DAILY,
    lag_limit=DAILY_LAG,
    is_personal=True,
    is_feature=False,
)
VIEWS = (CUSTOMER_PURCHASES, CUSTOMER_ENGAGEMENT, SKU_LOCATION_AVAILABILITY, PRODUCT_POPULARITY, SUBJECT_STANDING)
INDEXES = (AVAILABILITY, CUSTOMER_CONTEXT, CUSTOMER_IDENTITY, SUBJECT_GATE)
SERVICES = (
    Service("recommend_v1", "What to show a shopper.", (CUSTOMER_PURCHASES, CUSTOMER_ENGAGEMENT), "personalization"),
    Service(
        "churn_v1", "How likely a customer is to stay away.", (CUSTOMER_PURCHASES, CUSTOMER_ENGAGEMENT), "analytics"
    ),
    Service("campaign_email_v1", "What to write about, by e-mail.", (CUSTOMER_PURCHASES,), "marketing", "email"),
    Service("standing_v1", "What a person allowed, for that person.", (SUBJECT_STANDING,), "service"),
    Service("availability_v1", "What is where.", (SKU_LOCATION_AVAILABILITY,), None),
    Service("popularity_v1", "What sells.", (PRODUCT_POPULARITY,), None),
)
# Read by answers of our own, under the same gate; not offered to models.
RECOMMEND_CONTEXT = Service(
    "recommend_context_v1", "Where and after what to recommend.", (CUSTOMER_CONTEXT,), "personalization"
)


def view(name: str) -> View:
    """The view of a name. Raises: FeatureError when there is none."""
    known = {each.name: each for each in (*VIEWS, *INDEXES)}
    if name not in known:
        raise FeatureError(f"feature view: expected one of {list(known)}, found {name!r}. Correct the name.")
    return known[name]


def service(name: str) -> Service:
    """The feature service of a name. Raises: FeatureError when there is none."""
    known = {each.name: each for each in SERVICES}
    if name not in known:
        raise FeatureError(f"feature service: expected one of {list(known)}, found {name!r}. Correct the name.")
    return known[name]
