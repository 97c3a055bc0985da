"""Whose identities may be joined with others' by likeness: who said yes to `profile_unification`.

Identities that a login, a card or a verified address proves to be one person's are joined for `service` and do not ask. Which groups
look alike is found elsewhere.
"""

from dataclasses import replace
from datetime import datetime

import polars as pl

from consent.errors import ConsentError
from consent.rule.identity import LINKED, PROVED, joined_frame
from consent.rule.policy import Policy
from consent.rule.standing import DENIALS, standing_frame, touching

JOINING = "profile_unification"


def may_be_joined(
    events: pl.DataFrame, groups: pl.DataFrame, policy: Policy, at: datetime, known_at: datetime | None = None
) -> pl.DataFrame:
    """Whether each proved group may be joined with another by likeness, and why. One row per group: group_ref, is_allowed, reason_code.

    `events`: the ledger's rows. `groups`: group_ref, identity_ref, link_type, as the groups are before anything is joined by
    likeness; a contact brings its nos. Two groups may be joined when both may. It is the standing of the group by itself: no link
    but a proved one is followed, for by what a likely one brought the answer would depend on the joins that it decides.

    Raises: ConsentError when the policy does not ask for `profile_unification` as a whole.
    """
    purpose = policy.purposes.get(JOINING)
    if purpose is None or purpose.rests_on_contract or len(purpose.channels) != 1:
        raise ConsentError(
            f"policy: expected {JOINING} as a purpose that people may refuse, asked once for every channel, "
            f"found {'none' if purpose is None else purpose}. Correct the policy; until then nobody is joined by likeness."
        )
    said = events.filter(touching(JOINING))
    found = standing_frame(
        said,
        groups.select(pl.col("group_ref").alias("customer_id"), "identity_ref", "link_type"),
        replace(policy, purposes={JOINING: purpose}),
        at,
        known_at,
        joined_frame(_proofs_near_a_no(said), known_at),
    )
    return found.select(pl.col("customer_id").alias("group_ref"), "is_allowed", "reason_code")


def _proofs_near_a_no(said: pl.DataFrame) -> pl.DataFrame:
    """The proved links of everyone whom a chain of them leads to from somebody who said no: any other link brings nothing.

    With the erasures and the unlinks that ended them, of whatever type.
    """
    kind = pl.col("event_type")
    near = said.filter(kind.is_in([*DENIALS])).select("subject_id").unique()
    links = said.filter(pl.col("linked_subject_id").is_not_null())
    proved = links.filter(kind == LINKED, pl.col("link_type").is_in(PROVED)).select("subject_id", "linked_subject_id")
    edges = pl.concat([proved, proved.select(subject_id="linked_subject_id", linked_subject_id="subject_id")]).unique()
    new = near
    while new.height:
        reached = edges.join(new, on="subject_id", how="semi").select(subject_id="linked_subject_id").unique()
        new = reached.join(near, on="subject_id", how="anti")
        near = pl.concat([near, new])
    is_proof = (kind != LINKED) | pl.col("link_type").is_in(PROVED)
    mine = links.filter(is_proof).join(near, on="subject_id", how="semi")
    others = links.filter(is_proof).join(near, left_on="linked_subject_id", right_on="subject_id", how="semi")
    return pl.concat([mine, others, said.filter(event_type="erased")])
