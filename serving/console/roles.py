"""Who may see and do what on the pages. A page asks for one right; a role is a list of rights, and of purposes it looks at people for.

Rights, not roles, stand at the pages, so that a role can be made without touching one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

RIGHTS = {
    "segments": "see segments, describe and preview them",
    "export": "send a segment out, where the policy asks for nobody else",
    "approve": "let a segment out that somebody else asked for",
    "results": "see what a segment did",
    "customers": "look up one customer",
    "orders": "look up one order",
    "reveal": "see contact data in the clear, with a reason",
    "stock": "see where goods are and what may be promised",
    "operations": "see promises, breaks, counts and checks",
    "audit": "follow consent, uses and exports; verify the ledger",
    "requests": "answer people's requests",
    "engineering": "see assets, checks and where their pages are",
}


@dataclass(frozen=True)
class Role:
    """What people with a job may do; `home` is the page they begin with, below /console."""

    name: str
    title: str
    home: str
    rights: frozenset[str]
    purposes: frozenset[str] = frozenset()


def _role(name: str, title: str, home: str, rights: str, purposes: str = "") -> Role:
    return Role(name, title, home, frozenset(rights.split()), frozenset(purposes.split()))


ROLES = {
    role.name: role
    for role in (
        _role("marketer", "Marketer", "/segments", "segments export approve results", "marketing"),
        _role("associate", "Store associate", "/customers", "customers orders stock", "service personalization"),
        _role(
            "contact_centre",
            "Contact centre",
            "/customers",
            "customers orders stock reveal",
            "service personalization",
        ),
        _role("auditor", "Auditor", "/audit", "audit results"),
        _role("privacy_officer", "Privacy officer", "/audit", "audit requests approve reveal results", "service"),
        _role("operations", "Operations", "/operations", "operations stock"),
        _role("engineer", "Data engineer", "/engineering", "engineering operations"),
    )
}


def rights_of(names: Iterable[str]) -> frozenset[str]:
    """Everything these roles may; a name that is no role may nothing."""
    return frozenset[str]().union(*(ROLES[name].rights for name in names if name in ROLES))


def purposes_of(names: Iterable[str]) -> frozenset[str]:
    """What these roles may look at people for."""
    return frozenset[str]().union(*(ROLES[name].purposes for name in names if name in ROLES))
