"""The console: every area, in the order of the navigation. A new area is a line here."""

from dataclasses import replace

from starlette.routing import Route

from serving.console import (
    activating,
    auditing,
    customers,
    engineering,
    frame,
    goods,
    marketing,
    operating,
    orders,
    requests_desk,
    results,
    sign_in,
)
from serving.console.counter import Counter
from serving.console.frame import Area, Desk
from serving.console.looks import Looks
from serving.console.sessions import Sessions
from serving.hub.seams import Seams
from troth.clock import Clock, SystemClock
from troth.home import Home


class Console:
    """The pages of a home. `seams`: what they have done by rooms above."""

    def __init__(self, home: Home, clock: Clock, wall: Clock | None = None, seams: Seams | None = None) -> None:
        sessions = Sessions(home.root / "serving" / "console.db")
        desk = Desk(home, clock, wall or SystemClock(), sessions, Looks(home.root / "logs"), seams=seams or Seams())
        self._counter = Counter(home, clock)
        self.desk = replace(desk, areas=self._areas(desk))

    def routes(self) -> list[Route]:
        return [*sign_in.routes(self.desk), *frame.routes(self.desk)]

    def close(self) -> None:
        self.desk.close()
        self._counter.close()

    def _areas(self, desk: Desk) -> list[Area]:
        return [
            sign_in.area(desk),
            marketing.area(),
            activating.area(),
            results.area(),
            customers.area(self._counter),
            orders.area(self._counter),
            goods.area(self._counter),
            operating.area(self._counter),
            auditing.area(self._counter),
            requests_desk.area(),
            engineering.area(self._counter),
        ]
