"""What a login, a verified mailbox or the scheme's own books prove, and what they do not."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from models.identity.proofs import SCHEMA, Sources, contacts, first_seen, proved, seen_together

NEW_YEAR = datetime(2025, 1, 1)
Rows = Sequence[Mapping[str, Any]]
TIME = pl.Datetime("us")
SHAPES: dict[str, dict[str, Any]] = {
    "accounts": {
        "account_id": pl.String, "account_ref": pl.String, "email_ref": pl.String, "is_email_verified": pl.Boolean,
        "is_test": pl.Boolean, "created_at": TIME, "updated_at": TIME, "phone_ref": pl.String,
    },
    "members": {
        "member_id": pl.String, "card_ref": pl.String, "account_ref": pl.String, "email_ref": pl.String,
        "enrolled_at": TIME, "updated_at": TIME, "phone_ref": pl.String,
    },
    "orders": {
        "order_id": pl.String, "account_ref": pl.String, "email_ref": pl.String, "is_test": pl.Boolean,
        "created_at": TIME, "updated_at": TIME, "phone_ref": pl.String, "order_name": pl.String,
    },
    "refunds": {"account_ref": pl.String, "created_at": TIME},
    "cards": {"loyalty_card_ref": pl.String, "payment_ref": pl.String, "seen_at": TIME},
    "devices": {"device_ref": pl.String, "account_ref": pl.String, "recorded_at": TIME},
    "handed_over": {"card_ref": pl.String, "order_name": pl.String, "seen_at": TIME},
}  # fmt: skip


def day(number: float) -> datetime:
    return NEW_YEAR + timedelta(days=number)


def sources(**tables: Rows) -> Sources:
    """Rows as given, by table; a time left out is New Year, an id left out follows from what the row names."""
    frames = {}
    for name, shape in SHAPES.items():
        plain = {column: NEW_YEAR for column, kind in shape.items() if kind == TIME} | {
            column: False for column, kind in shape.items() if kind == pl.Boolean
        }
        rows = [_named({**plain, **row}, shape) for row in tables.get(name, ())]
        frames[name] = pl.DataFrame(rows, schema=shape)
    return Sources(**frames)


def _named(row: dict[str, Any], shape: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {"account_id": row.get("account_ref"), "order_id": f"{row.get('account_ref')}/{row.get('email_ref')}"}
    return {**{column: value for column, value in defaults.items() if column in shape}, **row}


def hubs(said: Sources) -> dict[str, str]:
    return dict(proved(said).select("identity_ref", "hub_identity_ref").iter_rows())


def test_an_email_proves_an_account_only_when_verified_and_for_it_alone() -> None:
    found = hubs(
        sources(
            accounts=[
                {"account_ref": "account_ann", "email_ref": "email_ann", "is_email_verified": True},
                {"account_ref": "account_bob", "email_ref": "email_home", "is_email_verified": True},
                {"account_ref": "account_cat", "email_ref": "email_home", "is_email_verified": True},
                {"account_ref": "account_dan", "email_ref": "email_dan", "is_email_verified": False},
            ],
            orders=[{"email_ref": ref} for ref in ("email_ann", "email_home", "email_dan")],
        )
    )
    assert found == {
        "account_ann": "account_ann", "account_bob": "account_bob", "account_cat": "account_cat", "account_dan": "account_dan",
        "email_ann": "account_ann", "email_home": "email_home", "email_dan": "email_dan",
    }  # fmt: skip


def test_an_email_that_an_account_gave_up_proves_it_no_more() -> None:
    ann = {"account_ref": "account_ann", "is_email_verified": True}
    found = hubs(
        sources(
            accounts=[
                {**ann, "email_ref": "email_old", "updated_at": day(1)},
                {**ann, "email_ref": "email_new", "updated_at": day(2)},
            ],
            orders=[{"email_ref": "email_old"}],
        )
    )
    assert found == {"account_ann": "account_ann", "email_new": "account_ann", "email_old": "email_old"}


def test_an_email_named_only_in_an_account_not_verified_is_nobodys_identifier_yet() -> None:
    assert hubs(sources(accounts=[{"account_ref": "account_dan", "email_ref": "email_dan"}])) == {
        "account_dan": "account_dan"
    }


def test_a_device_proves_an_account_only_when_it_logged_in_to_no_other() -> None:
    found = hubs(
        sources(
            devices=[
                {"device_ref": "device_phone", "account_ref": "account_ann"},
                {"device_ref": "device_phone", "account_ref": None},
                {"device_ref": "device_kitchen", "account_ref": "account_bob"},
                {"device_ref": "device_kitchen", "account_ref": "account_cat"},
                {"device_ref": None, "account_ref": "account_dan"},
            ]
        )
    )
    assert found == {
        "account_ann": "account_ann", "account_bob": "account_bob", "account_cat": "account_cat",
        "account_dan": "account_dan", "device_phone": "account_ann",
    }  # fmt: skip


def test_cards_of_a_member_hang_on_the_account_else_on_the_first_card_and_an_unknown_card_on_itself() -> None:
    said = sources(
        members=[
            {"member_id": "m1", "card_ref": "card_old", "updated_at": day(1)},
            {"member_id": "m1", "card_ref": "card_new", "updated_at": day(32)},
            {"member_id": "m2", "card_ref": "card_ann", "account_ref": "account_ann"},
            {"member_id": "m3", "card_ref": None},
        ],
        cards=[{"loyalty_card_ref": "card_found"}, {"loyalty_card_ref": "card_new"}, {"loyalty_card_ref": None}],
    )
    assert hubs(said) == {
        "account_ann": "account_ann", "card_ann": "account_ann",
        "card_old": "card_old", "card_new": "card_old", "card_found": "card_found",
    }  # fmt: skip
    kinds = dict(proved(said).select("identity_ref", "link_type").iter_rows())
    assert kinds == {
        "account_ann": "hub", "card_ann": "deterministic",
        "card_old": "hub", "card_new": "deterministic", "card_found": "hub",
    }  # fmt: skip


def test_all_cards_of_a_member_who_opens_an_account_follow_it() -> None:
    found = hubs(
        sources(
            members=[
                {"member_id": "m1", "card_ref": "card_old", "updated_at": day(1)},
                {"member_id": "m1", "card_ref": "card_new", "updated_at": day(2)},
                {"member_id": "m1", "card_ref": "card_new", "account_ref": "account_ann", "updated_at": day(3)},
            ]
        )
    )
    assert found == {"account_ann": "account_ann", "card_old": "account_ann", "card_new": "account_ann"}


def test_a_card_that_changes_hands_belongs_to_who_carried_it_last() -> None:
    found = hubs(
        sources(
            members=[
                {"member_id": "m1", "card_ref": "card_family", "updated_at": day(1)},
                {"member_id": "m1", "card_ref": "card_own", "updated_at": day(2)},
                {"member_id": "m2", "card_ref": "card_first", "updated_at": day(1)},
                {"member_id": "m2", "card_ref": "card_family", "updated_at": day(3)},
            ]
        )
    )
    assert found == {"card_own": "card_own", "card_first": "card_first", "card_family": "card_first"}


def test_a_tester_once_is_a_tester_with_everything_proved_for_the_account() -> None:
    dan = {"account_ref": "account_dan", "email_ref": "email_dan", "is_email_verified": True}
    found = proved(
        sources(
            accounts=[
                {**dan, "is_test": True, "updated_at": day(1)},
                {**dan, "is_test": False, "updated_at": day(2)},
                {"account_ref": "account_eve", "is_test": None},
            ],
            orders=[
                {"email_ref": "email_shop", "is_test": True, "order_id": "o1", "updated_at": day(2)},
                {"email_ref": "email_shop", "is_test": False, "order_id": "o1", "updated_at": day(1)},
            ],
            members=[{"member_id": "m1", "card_ref": "card_dan", "account_ref": "account_dan"}],
        )
    )
    assert dict(found.select("identity_ref", "is_test").iter_rows()) == {
        "account_dan": True, "email_dan": True, "card_dan": True, "account_eve": False,
    }  # fmt: skip


def test_an_identifier_is_first_seen_where_any_source_showed_it() -> None:
    seen = first_seen(
        sources(
            accounts=[{"account_ref": "account_ann", "email_ref": "email_ann", "created_at": day(9)}],
            orders=[{"account_ref": "account_ann", "email_ref": "email_ann", "created_at": day(5)}],
            members=[{"member_id": "m1", "card_ref": "card_ann", "enrolled_at": day(7), "updated_at": day(8)}],
            cards=[{"loyalty_card_ref": "card_ann", "seen_at": day(6)}],
            refunds=[{"account_ref": "account_bob", "created_at": day(4)}],
        )
    )
    assert {ref: at for _, ref, at in seen.iter_rows()} == {
        "account_ann": day(5), "email_ann": day(5), "card_ann": day(6), "account_bob": day(4),
    }  # fmt: skip


def _some(prefix: str, most: int = 4) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), st.integers(1, most).map(lambda number: f"{prefix}_{number}"))


SURE = st.integers(1, 4)
TABLES = st.fixed_dictionaries(
    {
        "accounts": st.lists(st.fixed_dictionaries({"account_ref": SURE.map(lambda n: f"account_{n}"), "email_ref": _some("email"), "is_email_verified": st.booleans(), "is_test": st.sampled_from([None, False, True])}), max_size=8),
        "members": st.lists(st.fixed_dictionaries({"member_id": SURE.map(lambda n: f"m{n}"), "card_ref": _some("card"), "account_ref": _some("account"), "email_ref": _some("email")}), max_size=8),
        "orders": st.lists(st.fixed_dictionaries({"order_id": SURE.map(lambda n: f"o{n}"), "account_ref": _some("account"), "email_ref": _some("email"), "is_test": st.booleans()}), max_size=8),
        "refunds": st.lists(st.fixed_dictionaries({"account_ref": _some("account")}), max_size=3),
        "cards": st.lists(st.fixed_dictionaries({"loyalty_card_ref": _some("card", 6)}), max_size=4),
        "devices": st.lists(st.fixed_dictionaries({"device_ref": _some("device"), "account_ref": _some("account")}), max_size=6),
    }
)  # fmt: skip


def _dated(tables: Mapping[str, Rows], at: Sequence[int]) -> dict[str, Rows]:
    """Each row of a table at a time of its own, so that one version of each is the last."""
    return {
        name: [
            {**row, **{column: day(at[number]) for column, kind in SHAPES[name].items() if kind == TIME}}
            for number, row in enumerate(rows)
        ]
        for name, rows in tables.items()
    }


@settings(max_examples=40, deadline=None)
@given(TABLES, st.permutations(range(8)), st.randoms(use_true_random=False))
def test_each_identifier_is_told_once_with_a_hub_that_is_told_whatever_the_order_of_rows(
    tables: Mapping[str, Rows], at: Sequence[int], random: Any
) -> None:
    dated = _dated(tables, at)
    found = proved(sources(**dated))
    assert dict(found.schema) == SCHEMA
    named = found.select("identity_type", "identity_ref").rows()
    assert len(set(named)) == len(named)
    own = found.filter(link_type="hub").select("identity_type", "identity_ref").rows()
    assert set(found.select("hub_identity_type", "hub_identity_ref").rows()) == set(own)
    assert (
        found.select("identity_ref", "hub_identity_ref", "source_name", "linked_at").null_count().sum_horizontal()[0]
        == 0
    )
    shuffled = sources(**{name: random.sample(rows, len(rows)) for name, rows in dated.items()})
    assert proved(shuffled).equals(found)
    order = ("identity_type", "identity_ref")
    assert first_seen(shuffled).sort(order).equals(first_seen(sources(**dated)).sort(order))


def shown(said: Sources) -> set[tuple[str, str]]:
    """Contacts with the customer they are of, every group by itself."""
    alone = proved(said).with_columns(customer_id="hub_identity_ref")
    return set(contacts(seen_together(said), alone).select("identity_ref", "group_ref").iter_rows())


def test_what_one_record_shows_and_nothing_proves_is_a_contact_of_whose_record_it_was() -> None:
    said = sources(
        accounts=[
            {
                "account_ref": "account_ann",
                "email_ref": "email_ann",
                "is_email_verified": True,
                "phone_ref": "phone_home",
            },
            {
                "account_ref": "account_bob",
                "email_ref": "email_ann",
                "is_email_verified": False,
                "phone_ref": "phone_home",
            },
        ],
        members=[{"member_id": "m1", "card_ref": "card_ann", "email_ref": "email_ann", "account_ref": "account_ann"}],
    )
    assert shown(said) == {("phone_home", "account_ann"), ("phone_home", "account_bob"), ("email_ann", "account_bob")}


def test_who_collects_an_order_with_a_card_of_their_own_is_a_contact_of_who_ordered_and_no_more() -> None:
    said = sources(
        accounts=[{"account_ref": "account_ann", "email_ref": "email_ann", "is_email_verified": True}],
        members=[{"member_id": "m1", "card_ref": "card_bob"}],
        orders=[{"account_ref": "account_ann", "email_ref": "email_ann", "order_name": "#1"}],
        handed_over=[
            {"card_ref": "card_bob", "order_name": "#1", "seen_at": day(3)},
            {"card_ref": "card_bob", "order_name": "#2", "seen_at": day(4)},
        ],
    )
    assert hubs(said)["card_bob"] == "card_bob"
    assert shown(said) == {("card_bob", "account_ann")}
