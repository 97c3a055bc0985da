"""`troth watch`: what is late, and what to be woken for. Parses and prints."""

import sys
from typing import Annotated

import typer

from orchestration.errors import NOTHING_READABLE, RunError
from orchestration.options import HomeOption, JsonOption
from troth.settings import here

app = typer.Typer(no_args_is_help=True, help="What is late, and what to be woken for.")


@app.command("views")
def watch_views(
    late: Annotated[bool, typer.Option("--late", help="Only views that are late.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How old what each view knows is, beside how old it may be. Exit code 1 when one is late."""
    from feature_repo.errors import FeatureError
    from orchestration.printing import show
    from serving.answers import ask_lags, clock_of

    at_home = here(home).home
    try:
        lags = ask_lags(at_home, clock_of(at_home).now())
    except FeatureError as error:
        raise RunError(str(error), NOTHING_READABLE) from None
    told = [each for each in lags if each.is_late or not late]
    if told or as_json:
        show(told, as_json)
    sys.exit(int(any(each.is_late for each in lags)))


@app.command("alerts")
def watch_alerts(as_json: JsonOption = False) -> None:
    """Alerting rules for Prometheus, as YAML that it loads."""
    import yaml

    from orchestration.printing import show
    from serving.operations.alerts import document

    if as_json:
        show(document(), True)
    else:
        print(yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=1_000), end="")
