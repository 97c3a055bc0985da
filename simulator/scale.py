"""How large a simulated retailer is and how it misbehaves: free parameters, and the sizes that have names."""

from dataclasses import dataclass, fields
from datetime import date

from troth.errors import TrothError


class SimulatorError(TrothError):
    """The simulator was asked for something it cannot do."""


@dataclass(frozen=True)
class Scale:
    """Free parameters of a simulated retailer. Every field is a flag of `python -m simulator`.

    Rates named `_rate` or `_share` are probabilities; `per_person_day` rates are expected counts.
    """

    people: int = 20_000
    stores: int = 40
    distribution_centers: int = 2
    skus: int = 2_000
    days: int = 60
    first_day: date = date(2026, 3, 2)
    # What people do.
    store_trips_per_person_day: float = 0.0315
    lines_per_trip: float = 2.7
    web_orders_per_person_day: float = 0.0195
    lines_per_order: float = 1.8
    browse_sessions_per_person_day: float = 0.014
    member_share: float = 0.45
    account_share: float = 0.55
    line_return_rate: float = 0.045
    order_return_rate: float = 0.09
    changed_mind_rate: float = 0.02
    tablet_rate: float = 0.008
    unsubscribe_rate: float = 0.0007
    # What becomes of the stock.
    store_cover_days: float = 45.0
    opening_error_rate: float = 0.55
    shrink_per_position_day: float = 0.0006
    misplacement_per_position_day: float = 0.0006
    damage_per_position_day: float = 0.0001
    mis_scan_rate: float = 0.004
    transit_loss_rate: float = 0.005
    counts_per_store_day: int = 3
    # What goes wrong on the way here.
    void_line_rate: float = 0.010
    false_receipt_rate: float = 0.006
    lost_receipt_rate: float = 0.02
    misnamed_handover_rate: float = 0.005
    nameless_event_rate: float = 0.05
    corrected_event_rate: float = 0.02
    duplicated_record_rate: float = 0.002
    malformed_record_rate: float = 0.0004
    held_back_record_rate: float = 0.001
    resent_file_rate: float = 0.02
    late_file_rate: float = 0.02
    dropped_file_rate: float = 0.0
    skewed_clock_rate: float = 0.0
    out_of_order_file_rate: float = 0.10
    typo_rate: float = 0.05
    blind_snapshot_rate: float = 0.25
    unheard_store_share: float = 0.10
    # Who lives together: of households of two or more, of families of three or more, of those who live alone.
    housemate_share: float = 0.14
    twin_rate: float = 0.02
    namesake_rate: float = 0.04
    hall_share: float = 0.02
    shared_email_rate: float = 0.06
    shared_phone_rate: float = 0.30
    shared_payment_rate: float = 0.15
    # Who comes twice, by account or by membership; second cards that take the account link along.
    duplicate_account_rate: float = 0.06
    duplicate_membership_rate: float = 0.07
    transferred_link_share: float = 0.5
    # What is written of a person: on one record of theirs, on the earlier one, on the loyalty form.
    nickname_rate: float = 0.12
    changed_name_rate: float = 0.03
    moved_rate: float = 0.08
    initial_rate: float = 0.02
    swapped_name_rate: float = 0.01
    work_phone_rate: float = 0.05
    missing_birth_date_rate: float = 0.12
    wrong_birth_date_rate: float = 0.02
    placeholder_rate: float = 0.03
    # Receipts without a card for which somebody at the till shows their own.
    clerk_card_rate: float = 0.01

    def __post_init__(self) -> None:
        for name in ("people", "stores", "distribution_centers", "skus", "days"):
            if getattr(self, name) < 1:
                raise SimulatorError(f"{name}: expected at least 1, found {getattr(self, name)}. Give a larger number.")
        for name, most in (("skus", 99_999), ("people", 9_999_999), ("stores", 9_999), ("distribution_centers", 99)):
            if getattr(self, name) > most:
                raise SimulatorError(
                    f"{name}: expected at most {most}, found {getattr(self, name)}. Codes have no room for more; give fewer."
                )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_rate", "_share")) and not 0 <= value <= 1:
                raise SimulatorError(f"{field.name}: expected a number from 0 to 1, found {value}. Correct it.")
            if "_per_" in field.name and value < 0:
                raise SimulatorError(f"{field.name}: expected a number from 0, found {value}. Correct it.")
        for name in ("lines_per_trip", "lines_per_order", "store_cover_days"):
            if getattr(self, name) < 1:
                raise SimulatorError(f"{name}: expected at least 1, found {getattr(self, name)}. Correct it.")


SCALES = {
    "small": Scale(),
    "medium": Scale(people=100_000, stores=100, distribution_centers=3, skus=5_000, days=90),
    # A year of a busy retailer: about 50 million order lines.
    "large": Scale(
        people=1_000_000,
        stores=500,
        distribution_centers=8,
        skus=20_000,
        days=365,
        store_trips_per_person_day=0.038,
        web_orders_per_person_day=0.024,
    ),
}
# A village shop of a retailer, lively and clumsy, so that four days hold one of everything. For tests.
TINY = Scale(
    people=60,
    stores=3,
    distribution_centers=1,
    skus=25,
    days=4,
    store_trips_per_person_day=0.6,
    web_orders_per_person_day=0.35,
    browse_sessions_per_person_day=0.2,
    line_return_rate=0.15,
    order_return_rate=0.40,
    changed_mind_rate=0.06,
    tablet_rate=0.08,
    unsubscribe_rate=0.03,
    store_cover_days=6.0,
    shrink_per_position_day=0.03,
    misplacement_per_position_day=0.05,
    damage_per_position_day=0.05,
    mis_scan_rate=0.02,
    transit_loss_rate=0.05,
    void_line_rate=0.05,
    false_receipt_rate=0.05,
    lost_receipt_rate=0.10,
    misnamed_handover_rate=0.10,
    nameless_event_rate=0.15,
    corrected_event_rate=0.15,
    duplicated_record_rate=0.03,
    malformed_record_rate=0.02,
    held_back_record_rate=0.02,
    resent_file_rate=0.10,
    late_file_rate=0.10,
    out_of_order_file_rate=0.30,
    typo_rate=0.15,
    twin_rate=0.30,
    namesake_rate=0.40,
    hall_share=0.35,
    shared_email_rate=0.20,
    shared_payment_rate=0.30,
    duplicate_account_rate=0.25,
    duplicate_membership_rate=0.30,
    nickname_rate=0.25,
    changed_name_rate=0.10,
    moved_rate=0.15,
    initial_rate=0.10,
    swapped_name_rate=0.08,
    work_phone_rate=0.12,
    wrong_birth_date_rate=0.15,
    placeholder_rate=0.25,
    clerk_card_rate=0.10,
    unheard_store_share=0.34,
)
