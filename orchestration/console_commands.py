"""`troth console`: who may sign in to the pages, with an account of the home. Passwords are typed or made, never options."""

import sys
from typing import Annotated

import typer

from orchestration.options import HomeOption, JsonOption
from troth.clock import SystemClock
from troth.settings import here

app = typer.Typer(
    no_args_is_help=True, help="Accounts for the pages of `troth serve`; only hashes of passwords are kept."
)
Name = Annotated[str, typer.Argument(help="Small letters, digits, dots, dashes and underscores.")]


@app.command("add")
def add_account(
    name: Name,
    role: Annotated[list[str], typer.Option(help="What they do; see `troth console roles`. May be given again.")],
    ask: Annotated[bool, typer.Option("--ask", help="Ask for the password instead of making one.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account, or give one a new password and these roles. A password that is made is shown once."""
    from orchestration.printing import show
    from serving.console.accounts import add

    said = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True) if ask else None
    made = add(here(home).home, name, role, SystemClock().now(), said)
    show({"name": name, "roles": role, **({} if ask else {"password": made, "note": "shown once; keep it"})}, as_json)


@app.command("remove")
def remove_account(name: Name, home: HomeOption = None) -> None:
    """Forget an account. Whoever is signed in with it is out with the next page."""
    from serving.console.accounts import remove

    if not remove(here(home).home, name):
        print(f"troth: account: expected one of `troth console accounts`, found no {name[:63]!r}.", file=sys.stderr)
        raise typer.Exit(1)


@app.command("accounts")
def list_accounts(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Who has an account, with which roles, since when."""
    from orchestration.printing import show
    from serving.console.accounts import accounts

    found = accounts(here(home).home)
    rows = [{"name": each.name, "roles": ", ".join(each.roles), "made_at": each.made_at} for each in found]
    show({"accounts": rows}, as_json)


@app.command("roles")
def list_roles(as_json: JsonOption = False) -> None:
    """What each role may do, and for which purposes it looks at people."""
    from orchestration.printing import show
    from serving.console.roles import ROLES

    rows = [
        {
            "role": role.name,
            "rights": ", ".join(sorted(role.rights)),
            "purposes": ", ".join(sorted(role.purposes)),
        }
        for role in ROLES.values()
    ]
    show({"roles": rows}, as_json)


@app.command("provider")
def show_provider(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Who else vouches for people (`keys/sign_in.json`), asked now: where it is reached, and which group gets which role."""
    from orchestration.printing import show
    from serving.console.provider import BACK, Provider, settings
    from serving.console.sessions import Sessions

    root = here(home).home
    found = settings(root)
    if found is None:
        show({"provider": None, "note": "none is named; accounts of the home alone"}, as_json)
        return
    asked, _ = found
    published = Provider(root, Sessions(root.root / "serving" / "console.db")).published()
    assert published is not None  # noqa: S101 - it was named a line ago
    show(
        {
            "issuer": asked.issuer,
            "redirect_uri": asked.address + BACK,
            "authorization_endpoint": published.authorization_endpoint,
            "token_endpoint": published.token_endpoint,
            "end_session_endpoint": published.end_session_endpoint,
            "groups": [{"group": group, "roles": ", ".join(roles)} for group, roles in asked.roles.items()],
        },
        as_json,
    )
