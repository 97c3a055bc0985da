"""Contact data as it is shown to who has no need of it: enough to compare with what a person says, too little to write down."""

HIDDEN = "•••"


def masked(field_name: str, value: str) -> str:
    """`j•••@e•••.com` of an e-mail, the last two digits of a phone, nothing of what is neither.

    How long the hidden part is does not show.
    """
    if field_name == "email":
        name, at, domain = value.rpartition("@")
        host, dot, end = domain.rpartition(".")
        if not at or not name:
            return HIDDEN
        return f"{name[0]}{HIDDEN}@{host[0]}{HIDDEN}{dot}{end}" if host else f"{name[0]}{HIDDEN}@{HIDDEN}"
    digits = [each for each in value if each.isdigit()]
    if field_name == "phone" and len(digits) >= 6:
        return f"{HIDDEN} {HIDDEN} {''.join(digits[-2:])}"
    return HIDDEN
