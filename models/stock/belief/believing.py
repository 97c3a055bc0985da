"""Beliefs over time: all of what is known day by day, or one more day of it. The same cuts give the same beliefs either way."""

from datetime import datetime, timedelta

from models.errors import ModelsError
from models.stock.belief.beliefs import Beliefs
from models.stock.belief.evidence import DAY, Tables, gathered
from models.stock.belief.filtering import Scores, step
from models.stock.belief.parameters import Parameters


def beliefs_at(tables: Tables, as_of_at: datetime, parameters: Parameters, scores: Scores | None = None) -> Beliefs:
    """Beliefs from everything received by a time (naive UTC), in periods of a day that end at its time of day."""
    beliefs, began = Beliefs(), tables.began_at()
    if began is None:
        return Beliefs(as_of_at=as_of_at)
    days = max(0, -((began - as_of_at) // DAY) - 1) if began <= as_of_at else 0
    for ago in range(days, -1, -1):
        update(beliefs, tables, as_of_at - timedelta(days=ago), parameters, scores)
    return beliefs


def update(
    beliefs: Beliefs, tables: Tables, until: datetime, parameters: Parameters, scores: Scores | None = None
) -> None:
    """Change beliefs by what was received after their time and by another. Of earlier movements only those later than a count told now are looked at.

    Raises: ModelsError for a time that is not later.
    """
    if beliefs.as_of_at is not None and until <= beliefs.as_of_at:
        raise ModelsError(
            f"belief: expected a time after {beliefs.as_of_at}, found {until}. Go on from earlier beliefs, or ask for a later time."
        )
    evidence = gathered(beliefs, tables, until, parameters)
    step(beliefs, evidence, parameters, scores)
    beliefs.as_of_at = until
