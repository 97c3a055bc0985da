"""What `controller.yml` tells people, against what really flows: every purpose, category and recipient in which the two differ."""

from collections.abc import Iterator, Sequence

from consent.receipts.shopper import Controller
from consent.rule.policy import Policy
from models.purpose_flow.declarations import categories
from serving.records.shapes import Activity, Difference


def differences(controller: Controller, policy: Policy, activities: Sequence[Activity]) -> list[Difference]:
    """All of them, by purpose. None: what people are told is what happens."""
    return [*_purposes(controller, policy), *(each for activity in activities for each in _of(controller, activity))]


def _purposes(controller: Controller, policy: Policy) -> Iterator[Difference]:
    for code in controller.purposes:
        if code not in policy.purposes:
            yield Difference(
                purpose_code=code, what="purpose", kind="declared_not_found", name=code,
                sentence=f"{code}: told to people, and no purpose of the policy.",
            )  # fmt: skip
    for code in policy.purposes:
        if code not in controller.purposes:
            yield Difference(
                purpose_code=code, what="purpose", kind="found_not_declared", name=code,
                sentence=f"{code}: a purpose of the policy that people are told nothing of.",
            )  # fmt: skip


def _of(controller: Controller, activity: Activity) -> Iterator[Difference]:
    if activity.purpose_code not in controller.purposes:
        return
    said, code, kinds = controller.purposes[activity.purpose_code], activity.purpose_code, categories()
    told = set(said.personal_data)
    for data in activity.data:
        if not told & kinds[data.category].told_as:
            yield Difference(
                purpose_code=code, what="data", kind="found_not_declared", name=data.category,
                sentence=f"{code}: {data.category} ({data.term}) reaches {', '.join(data.uses[:3])}"
                f"{' and others' if len(data.uses) > 3 else ''}, and people are not told.",
            )  # fmt: skip
    flowing = {term for data in activity.data for term in kinds[data.category].told_as}
    for term in said.personal_data:
        if term not in flowing:
            yield Difference(
                purpose_code=code, what="data", kind="declared_not_found", name=term,
                sentence=f"{code}: people are told of {term}, and nothing of it reaches a use.",
            )  # fmt: skip
    real = [each for each in activity.recipients if each.kind == "destination"]
    for each in real:
        if not any(name.lower() in each.name.lower() for name in said.recipients):
            yield Difference(
                purpose_code=code, what="recipient", kind="found_not_declared", name=each.name,
                sentence=f"{code}: data goes to {each.name}, and people are not told.",
            )  # fmt: skip
    for name in said.recipients:
        if not any(name.lower() in each.name.lower() for each in real):
            yield Difference(
                purpose_code=code, what="recipient", kind="declared_not_found", name=name,
                sentence=f"{code}: people are told of {name}, and nothing is sent there from here.",
            )  # fmt: skip
