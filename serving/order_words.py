"""What is said of an order: sentences by stage, event, reason, refund and exception. Gaps in braces are filled from the row."""

STAGES = {
    "placed": "We have your order and will prepare it {place}.",
    "in_preparation": "It is being prepared {place}.",
    "sent": "It has been sent.",
    "ready_for_pickup": "It is ready to be picked up {place}.",
    "shipped": "It is on its way.",
    "lost": "The carrier could not deliver it.",
    "delivered": "It was delivered.",
    "handed_over": "It was picked up {place}.",
    "sold": "Bought {place}.",
    "cancelled": "It was cancelled.",
}
STILL_OPEN = ("placed", "in_preparation", "sent", "ready_for_pickup", "shipped")
METHODS = {
    "in_store": "bought in a store",
    "ship_to_home": "shipped to the shopper",
    "ship_from_store": "shipped from a store",
    "click_and_collect": "picked up in a store",
    "curbside": "handed over at the kerb",
    "drop_ship": "sent by the supplier",
}
# What is said of an event: to everybody, else to the contact centre alone.
TOLD = {
    "sold": "Bought and paid {place}.",
    "placed": "Order placed.",
    "paid": "Paid: {money}.",
    "promised": "Promised by {promised}.",
    "promise_changed": "New time promised: by {promised}.",
    "ready_for_pickup": "{goods} ready to be picked up {place}.",
    "shipped": "{goods} sent{carrier}.",
    "in_transit": "{goods} on the way{carrier}.",
    "out_for_delivery": "{goods} out for delivery{carrier}.",
    "delivery_attempted": "The carrier came and could not hand over {goods}.",
    "delivery_failed": "The carrier could not deliver {goods}.",
    "delivered": "{goods} delivered.",
    "handed_over": "Picked up {place}.",
    "cancelled": "Order cancelled{why}.",
    "partially_refunded": "Refunded: {money}.",
    "refunded": "Refunded: {money}; all of it is now paid back.",
    "returned": "{goods} came back {place}.",
}
TOLD_TO_CENTRE = {
    "picked": "{goods} picked {place}.",
    "pick_failed": "{goods} not found {place}{why}.",
    "packed": "{goods} packed {place}.",
    "fulfilled": "The shop says that all of it has left.",
    "partially_fulfilled": "The shop says that part of it has left.",
    "reopened": "The shop opened the order again.",
}
REASONS = {
    "customer": "the shopper asked for it",
    "inventory": "the goods were not there",
    "declined": "the payment was declined",
    "fraud": "it looked like fraud",
    "staff": "a mistake of ours",
    "missing": "not on the shelf",
    "misplaced": "in another place",
    "damaged": "damaged",
}
REFUNDED_FOR = {
    "cancelled": "for {goods} that never left",
    "returned": "for {goods} that came back",
    "kept": "for {goods}, which may be kept",
    "shipping": "for the delivery",
    "adjustment": "as goodwill",
}
AMISS = {
    "short_pick": "We could not find {goods}.",
    "ready_late": "It was ready {late} later than promised.",
    "delivered_late": "It was delivered {late} later than promised.",
    "still_waiting": "It is later than promised: {late} by what we last heard.",
    "cancelled_by_shopper": "It was cancelled as you asked.",
    "cancelled_by_shop": "We had to cancel it{why}.",
    "delivery_failed": "The carrier could not deliver {goods}.",
}
AMISS_TO_CENTRE = {
    "cancelled_by_shopper": "Cancelled by the shopper.",
    "tender_differs": "What was paid at the till is {money} off the receipt.",
    "refund_differs": "What the payment service gave back is {money} off what was due.",
    "till_and_shop_differ": "Till and shop tell of one refund with amounts {money} apart.",
    "refunded_more_than_paid": "{money} more was given back than was paid.",
}
BACK = {"restocked": "saleable again", "damaged": "damaged", "not_said": "not yet inspected, or nobody says"}
