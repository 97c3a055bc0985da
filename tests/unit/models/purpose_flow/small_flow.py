"""A small retailer's flow: members, what they bought, a mart and a feature table, with one use. One plain default, named changes."""

from typing import Any

from models.purpose_flow.checking import Use
from models.purpose_flow.declarations import Personal
from models.purpose_flow.graph import Table, built
from models.purpose_flow.inspecting import Inspection
from models.purpose_flow.relations import Place

BORN: Place = ("raw_loyalty__members", "birth_date")
TABLES = (
    Table("raw_loyalty__members", ("member_id", "email", "birth_date", "city")),
    Table("raw_pos__sale_lines", ("member_id", "sku", "cents")),
    Table(
        "customers",
        sql="select member_id as customer_id, city from raw_loyalty__members where birth_date is not null",
        needs=("raw_loyalty__members",),
    ),
    Table(
        "ftr_spend",
        sql="select c.customer_id, sum(s.cents) as spent from customers as c join raw_pos__sale_lines as s on s.member_id = c.customer_id group by 1",
        needs=("customers", "raw_pos__sale_lines"),
    ),
)
DECLARED = {
    ("raw_loyalty__members", "member_id"): Personal("identifier", frozenset({"service", "marketing", "analytics"})),
    ("raw_loyalty__members", "email"): Personal("contact", frozenset({"service", "marketing"})),
    BORN: Personal("birth_date", frozenset({"service"})),
    ("raw_pos__sale_lines", "cents"): Personal("behaviour", frozenset({"service", "marketing", "analytics"})),
}
SERVED = Use("answer", "spend", "service", (("ftr_spend", "spent"), ("ftr_spend", "customer_id")), "serving/spend.py")
PLANTED = Use("segment", "spenders", "marketing", (("ftr_spend", "spent"),), "spenders.yml")


def flow(*uses: Use, **changes: Any) -> Inspection:
    plain: dict[str, Any] = {
        "graph": built(TABLES),
        "declared": DECLARED,
        "uses": uses or (SERVED,),
        "breakers": (),
        "keyed": frozenset(),
        "purposes": frozenset({"service", "marketing", "analytics"}),
    }
    return Inspection(**{**plain, **changes})
