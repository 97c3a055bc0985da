"""Why two identifiers are of one customer, or of two, in one sentence: the first reason that decides, in the order in which resolving asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.identity.explanations import Between, Comparison, Link, Who, Word
from models.identity.payments import PAYMENT
from models.identity.resolving import FORBIDDEN


@dataclass(frozen=True)
class Asked:
    """All that the sentence about two identifiers rests on."""

    first: Who
    second: Who
    best: Comparison | None
    word: Word | None
    chain: Sequence[Link]
    between: Between | None

    @property
    def refused(self) -> list[Who]:
        return [who for who in (self.first, self.second) if not who.may_be_joined]


def told(asked: Asked) -> tuple[str, str]:
    """The outcome and the sentence that says it."""
    first, second = asked.first, asked.second
    steward = _by_steward(asked)
    cards = [who for who in (first, second) if who.identity_type == PAYMENT]
    if cards and not steward:
        return _by_payment(asked, cards)
    if steward and (steward[0] != "forced" or first.hub_identity_ref != second.hub_identity_ref):
        return steward
    return _why_joined(asked) if first.customer_id == second.customer_id else _why_apart(asked)


def _by_steward(asked: Asked) -> tuple[str, str] | None:
    """Where a steward's word decides, or will; a link that was not allowed decides nothing."""
    if asked.word is None:
        return None
    word, is_joined = asked.word, asked.first.customer_id == asked.second.customer_id
    said = f"{word.actor_id} said so on {word.decided_at[:10]}: {word.reason}"
    if word.decision_type == FORBIDDEN:
        parted = ("forbidden", f"Not joined, whatever else speaks for it: {said}")
        return ("pending", f"Joined as yet; the next run parts them: {said}") if is_joined else parted
    if is_joined:
        return "forced", f"Joined by a steward: {said}"
    return None if asked.refused else ("pending", f"Not joined as yet; the next run joins them: {said}")


def _by_payment(asked: Asked, cards: Sequence[Who]) -> tuple[str, str]:
    """What a payment card is to another identifier. It joins nobody, so nothing is weighed."""
    told = "; ".join(f"{who.identity_ref}: {who.proof}" for who in cards)
    if asked.first.customer_id == asked.second.customer_id:
        return "tied", f"Tied, not joined. {told}."
    return "tied_to_another", f"Not tied: the payment card is another customer's. {told}."


def _why_joined(asked: Asked) -> tuple[str, str]:
    first, second, best = asked.first, asked.second, asked.best
    if first.hub_identity_ref == second.hub_identity_ref:
        told = [f"{who.proof} (as {who.source_name} told)" for who in (first, second) if not who.is_hub]
        return "proved", f"Joined, and proved: {'; '.join(told)}."
    if best is not None and best.bits >= best.bar_bits:
        return "likely", f"Joined: {_sure(best)}."
    likely = [link.probability for link in asked.chain if link.how == "likely" and link.probability is not None]
    weakest = f", the weakest {percent(min(likely))} likely" if likely else ""
    alone = (
        f"by themselves they are {percent(best.probability)} likely one person"
        if best
        else "by themselves they say nothing"
    )
    return "likely_through_others", f"Joined through {many(len(asked.chain), 'link')}{weakest}; {alone}."


def _why_apart(asked: Asked) -> tuple[str, str]:
    best, between = asked.best, asked.between
    if asked.refused and (asked.word or (best is not None and best.bits >= best.bar_bits)):
        whose = " and ".join(f"the {who.identity_type} ({_refusal(who)})" for who in asked.refused)
        look = (
            "a steward linked them"
            if asked.word or best is None
            else f"they are {percent(best.probability)} likely one person"
        )
        return "not_allowed", f"Not joined: {look}, but not all said yes to being recognised: {whose}."
    if best is None:
        return (
            "nothing_to_compare",
            "Not joined: for at least one of them no record says who it is, so there is nothing to compare.",
        )
    if not best.keys_shared:
        common = " and ".join(best.keys_too_common)
        why = f"They agree on {common} alone, which too many share" if common else "No key brings the two together"
        told = f"{why}, so no run compares them. Compared now all the same"
        return "not_compared", f"Not joined. {told}, they are {_sure(best)}."
    if best.bits >= best.bar_bits and between is not None:
        return "outweighed", (
            f"Not joined: by themselves {_sure(best)}, but {between.against} of {many(between.pairs, 'pair')} between the two "
            f"customers speak against it, {between.average_bits:+.1f} bits on average."
        )
    return "below_the_bar", f"Not joined: {_sure(best)}."


def _sure(best: Comparison) -> str:
    return f"{percent(best.probability)} likely one person, and the bar is {best.bar_probability:.1%}"


def _refusal(who: Who) -> str:
    return (
        "a test account" if who.is_test else (who.consent_reason or "nobody was asked about it alone").replace("_", " ")
    )


def percent(probability: float) -> str:
    """A probability in words that are never surer than it is."""
    if 0.9995 <= probability < 1:
        return "over 99.9%"
    return "under 0.1%" if 0 < probability < 0.0005 else f"{probability:.1%}"


def many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
