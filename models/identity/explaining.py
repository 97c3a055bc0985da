"""Why two identifiers are one customer's, or are not: their records compared again, field by field, with the model in use.

Tokens, levels and numbers alone; what records say in clear is added by whoever hands it in, and only then.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import msgspec
import polars as pl

from models.errors import ModelsError
from models.identity.clusters import DOUBT, MOST_BITS
from models.identity.comparisons import Comparisons
from models.identity.explanations import (
    Between,
    Comparison,
    Costs,
    CustomerExplanation,
    Explanation,
    Group,
    Link,
    Who,
    Word,
)  # fmt: skip
from models.identity.payments import PAYMENT
from models.identity.reasons import Asked, many, percent, told
from models.identity.resolving import FORBIDDEN, LINKED

MOST_SHOWN = 40  # records of a customer that are compared with each other here
_PROOFS = {
    ("email", "account"): "the shop verified this e-mail for the account",
    ("card", "account"): "the loyalty scheme names the account for this card",
    ("card", "card"): "the loyalty scheme gave both cards to one member",
    ("device", "account"): "this device was logged in to the account, and to no other",
}


@dataclass(frozen=True)
class Explainer:
    """Explains what was decided of records. `members`: as `resolve` gave them; of the customers that are asked about, all identifiers, and
    in `compared` all their records. `standing`: group_ref, is_allowed, reason_code; None where nobody was asked. `words`: of stewards, with
    their fields as in `Word`, one row per pair.
    """

    compared: Comparisons
    version: str
    members: pl.DataFrame
    standing: pl.DataFrame | None = None
    words: pl.DataFrame | None = None

    def pair(self, first: str, second: str) -> Explanation:
        """Of two identifiers, or customers, for which their surest records speak. Raises: ModelsError for one that nobody knows."""
        sides = self._refs(first), self._refs(second)
        one, other = (refs[0] for refs in sides)
        if one == other:
            raise ModelsError(
                "explanation: expected two identifiers, found one and the same. Name another, or a customer alone."
            )
        best = self._best(*sides)
        if best is not None and first.startswith("cus_"):
            one = best.first_record
        if best is not None and second.startswith("cus_"):
            other = best.second_record
        mine, theirs = self._who(one), self._who(other)
        is_joined = mine.customer_id == theirs.customer_id
        word = self._word(mine, theirs)
        chain = tuple(self._chain(mine, theirs)) if is_joined else ()
        between = None if is_joined else self._between(mine.customer_id, theirs.customer_id)
        outcome, sentence = told(Asked(mine, theirs, best, word, chain, between))
        shown = {mine.identity_ref, theirs.identity_ref}
        others = [
            who
            for customer in dict.fromkeys((mine.customer_id, theirs.customer_id))
            for who in self._customer(customer)
            if who.identity_ref not in shown
        ]
        return Explanation(
            first=mine, second=theirs, is_joined=is_joined, outcome=outcome, sentence=sentence, model=self.version, costs=Costs(),
            comparison=best, chain=chain, between=between, steward=word, members=tuple(others),
        )  # fmt: skip

    def customer(self, customer_id: str) -> CustomerExplanation:
        """Of everything a customer is made of. Raises: ModelsError for one that nobody knows."""
        people = self._customer(customer_id)
        if not people:
            raise _unknown("customer", customer_id)
        groups: dict[str, list[Who]] = {}
        for who in people:
            groups.setdefault(who.hub_identity_ref, []).append(who)
        edges = self._edges(customer_id)
        tree = list(_spanning(list(groups), edges, self._hub))
        words = [
            word for word in self._all_words() if {word.first_ref, word.second_ref} <= {w.identity_ref for w in people}
        ]
        cards = sum(who.identity_type == PAYMENT for who in people)
        made = (
            f"{customer_id} is made of {many(len(people) - cards, 'identifier')} in {many(len(groups), 'proved group')}"
        )
        if len(groups) == 1:
            sentence = f"{made}: nothing but proof holds it together."
        else:
            likely, forced = ([link for link in tree if link.how == how] for how in ("likely", "forced"))
            parts = (
                [f"{many(len(likely), 'likely link')}, the weakest {percent(min(x.probability or 0 for x in likely))}"]
                if likely
                else []
            )
            parts += [f"{many(len(forced), 'link')} by a steward"] if forced else []
            sentence = f"{made}, joined by {' and '.join(parts) or 'what is known no more'}."
        if cards:
            sentence += f" Receipts without a loyalty card are tied to it by {many(cards, 'payment card')}."
        return CustomerExplanation(
            customer_id=customer_id, sentence=sentence, model=self.version, links=tuple(tree), between=tuple(edges), stewards=tuple(words),
            groups=tuple(Group(hub_identity_ref=hub, members=tuple(sorted(each, key=lambda w: not w.is_hub))) for hub, each in groups.items()),
        )  # fmt: skip

    @cached_property
    def _known(self) -> dict[str, Who]:
        standing: dict[str, tuple[bool, str]] = {}
        if self.standing is not None:
            standing = {
                ref: (may, why)
                for ref, may, why in self.standing.select("group_ref", "is_allowed", "reason_code").iter_rows()
            }
        found = {}
        for row in self.members.iter_rows(named=True):
            hub = row["hub_identity_ref"]
            may, why = standing.get(hub, (self.standing is None, None))
            found[row["identity_ref"]] = Who(
                identity_ref=row["identity_ref"], identity_type=row["identity_type"], source_name=row["source_name"],
                hub_identity_type=row["hub_identity_type"], hub_identity_ref=hub, is_hub=row["identity_ref"] == hub,
                proof=_proof(row["identity_type"], row["hub_identity_type"], row["identity_ref"] == hub), customer_id=row["customer_id"],
                is_test=bool(row["is_test"]), may_be_joined=may and not row["is_test"], consent_reason=why,
            )  # fmt: skip
        return found

    @cached_property
    def _by_customer(self) -> dict[str, list[Who]]:
        found: dict[str, list[Who]] = {}
        for who in self._known.values():
            found.setdefault(who.customer_id, []).append(who)
        return found

    @cached_property
    def _by_group(self) -> dict[str, list[Who]]:
        found: dict[str, list[Who]] = {}
        for who in self._known.values():
            found.setdefault(who.hub_identity_ref, []).append(who)
        return found

    def _customer(self, customer_id: str) -> list[Who]:
        return self._by_customer.get(customer_id, [])

    def _who(self, ref: str) -> Who:
        return self._known[ref]

    def _refs(self, said: str) -> list[str]:
        """The identifier named, else, of a customer, its hubs first."""
        if said.startswith("cus_"):
            people = sorted(self._customer(said), key=lambda who: not who.is_hub)
            if not people:
                raise _unknown("customer", said)
            return [who.identity_ref for who in people]
        if said not in self._known:
            raise _unknown("identifier", said)
        return [said]

    def _records(self, refs: Sequence[str]) -> list[int]:
        """The rows of the records of identifiers; where they have none, of their groups."""
        rows = [self.compared.rows[ref] for ref in refs if ref in self.compared.rows]
        if not rows:
            groups = dict.fromkeys(self._who(ref).hub_identity_ref for ref in refs)
            rows = [
                self.compared.rows[w.identity_ref]
                for hub in groups
                for w in self._by_group[hub]
                if w.identity_ref in self.compared.rows
            ]
        return rows[:MOST_SHOWN]

    def _best(self, first: Sequence[str], second: Sequence[str]) -> Comparison | None:
        mine, theirs = self._records(first), self._records(second)
        pairs = [(a, b) for a in mine for b in theirs if a != b]
        if not pairs:
            return None
        row = self.compared.scored(pairs).sort("bits", descending=True, maintain_order=True).row(0, named=True)
        a, b = row["first"], row["second"]
        if a not in mine or b not in theirs:
            a, b = b, a
        return self.compared.told(a, b, row)

    def _edges(self, customer_id: str) -> list[Link]:
        """Every pair of groups of a customer with its surest pair of records, or a steward's word; the surest first."""
        people = self._customer(customer_id)
        group = {
            at: who.hub_identity_ref for who in people if (at := self.compared.rows.get(who.identity_ref)) is not None
        }
        rows = sorted(group)[:MOST_SHOWN]
        pairs = [(a, b) for a, b in combinations(rows, 2) if group[a] != group[b]]
        names = self.compared.names
        best: dict[frozenset[str], Link] = {}
        for row in (
            self.compared.scored(pairs).sort("bits", descending=True, maintain_order=True).iter_rows(named=True)
            if pairs
            else ()
        ):
            key = frozenset((group[row["first"]], group[row["second"]]))
            best.setdefault(key, Link(
                first_ref=names[row["first"]], second_ref=names[row["second"]], how="likely", probability=row["probability"], bits=row["bits"],
                words=f"their records look alike: {percent(row['probability'])} likely one person",
            ))  # fmt: skip
        for word in self._all_words():
            mine, theirs = self._known.get(word.first_ref), self._known.get(word.second_ref)
            if (
                word.decision_type == LINKED
                and mine
                and theirs
                and mine.customer_id == theirs.customer_id == customer_id
                and mine.hub_identity_ref != theirs.hub_identity_ref
            ):
                key = frozenset((mine.hub_identity_ref, theirs.hub_identity_ref))
                likely = best.get(key)
                best[key] = Link(
                    first_ref=word.first_ref, second_ref=word.second_ref, how="forced", steward=word,
                    words=f"{word.actor_id} joined them on {word.decided_at[:10]}: {word.reason}",
                    probability=likely.probability if likely else None, bits=likely.bits if likely else None,
                )  # fmt: skip
        return sorted(best.values(), key=lambda link: (link.how != "forced", -(link.bits or 0.0)))

    def _chain(self, first: Who, second: Who) -> Iterator[Link]:
        """From one identifier to its group, over the surest links between groups, to the other."""
        yield from _to_hub(first)
        if first.hub_identity_ref != second.hub_identity_ref:
            hubs = list(dict.fromkeys(who.hub_identity_ref for who in self._customer(first.customer_id)))
            tree = list(_spanning(hubs, self._edges(first.customer_id), self._hub))
            yield from _path(first.hub_identity_ref, second.hub_identity_ref, tree, self._hub)
        for link in _to_hub(second):
            yield msgspec.structs.replace(link, first_ref=link.second_ref, second_ref=link.first_ref)

    def _hub(self, ref: str) -> str:
        return self._who(ref).hub_identity_ref

    def _between(self, first: str, second: str) -> Between | None:
        mine, theirs = ([self.compared.rows[w.identity_ref] for w in self._customer(each) if w.identity_ref in self.compared.rows][:MOST_SHOWN]
                        for each in (first, second))  # fmt: skip
        pairs = [(a, b) for a in mine for b in theirs]
        if not pairs:
            return None
        weighed = (self.compared.scored(pairs)["within"] - DOUBT).clip(-MOST_BITS, MOST_BITS)
        return Between(pairs=weighed.len(), against=int((weighed < 0).sum()), average_bits=float(weighed.mean()))  # type: ignore[arg-type]

    def _all_words(self) -> Iterator[Word]:
        if self.words is not None:
            for row in self.words.select(Word.__struct_fields__).iter_rows(named=True):
                yield Word(**{**row, "decided_at": row["decided_at"].isoformat()})

    def _word(self, first: Who, second: Who) -> Word | None:
        """What a steward said of the two, or of their groups: a no before a yes."""
        found = []
        for word in self._all_words():
            sides = {word.first_ref, word.second_ref}
            exact = sides == {first.identity_ref, second.identity_ref}
            groups = [
                self._known[ref].hub_identity_ref if ref in self._known else ref
                for ref in (word.first_ref, word.second_ref)
            ]
            if exact or (groups[0] != groups[1] and set(groups) == {first.hub_identity_ref, second.hub_identity_ref}):
                found.append((word.decision_type != FORBIDDEN, word))
        return min(found, key=lambda each: each[0])[1] if found else None


def _unknown(what: str, said: str) -> ModelsError:
    shown = said if said.startswith("cus_") else said.partition("_")[0]
    return ModelsError(
        f"{what}: expected one that the last run knew, found {shown[:40]}. See `troth identity show` for those of a customer, or run `troth run`."
    )


def _proof(identity_type: str, hub_type: str, is_hub: bool) -> str:
    if identity_type == PAYMENT:
        return (
            "no other customer was seen with this payment card: no proof, but receipts without a loyalty card follow it"
        )
    return (
        "stands for itself"
        if is_hub
        else _PROOFS.get((identity_type, hub_type), f"its source names the {hub_type} for it")
    )


def _to_hub(who: Who) -> Iterator[Link]:
    """The proof that ties an identifier to its group's hub; of a payment card, what stands in place of one."""
    if not who.is_hub:
        yield Link(
            first_ref=who.identity_ref,
            second_ref=who.hub_identity_ref,
            how="tied" if who.identity_type == PAYMENT else "proved",
            words=f"{who.proof} ({who.source_name})",
        )


def _spanning(nodes: Sequence[str], edges: Sequence[Link], node_of: Callable[[str], str]) -> Iterator[Link]:
    """The surest links that hold the nodes together (Kruskal 1956). `edges` come surest first."""
    part = {node: node for node in nodes}

    def root(node: str) -> str:
        while part[node] != node:
            node = part[node]
        return node

    for edge in edges:
        one, other = root(node_of(edge.first_ref)), root(node_of(edge.second_ref))
        if one != other:
            part[one] = other
            yield edge


def _path(start: str, end: str, tree: Sequence[Link], node_of: Callable[[str], str]) -> Sequence[Link]:
    """The links of a tree from one node to another, each turned to run that way."""
    turned = [msgspec.structs.replace(link, first_ref=link.second_ref, second_ref=link.first_ref) for link in tree]
    reached: dict[str, tuple[Link, ...]] = {start: ()}
    fresh = [start]
    while fresh:
        here = fresh.pop()
        for link in (*tree, *turned):
            if node_of(link.first_ref) == here and (there := node_of(link.second_ref)) not in reached:
                reached[there] = (*reached[here], link)
                fresh.append(there)
    return reached.get(end, ())
