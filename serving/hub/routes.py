"""The hub over HTTP: which path is answered by whom.

Who a request is about is proved by a key or by a link. Global Privacy Control is recorded as soon as a link has
proved a subject, before anything else is read or said.
"""

from starlette.routing import Route

from serving.hub.centre import Centre
from serving.hub.desk import Desk
from serving.hub.people import People
from serving.hub.systems import Systems


class Hub(Desk):
    """A desk with its counters."""

    def routes(self) -> list[Route]:
        """Every route of the hub."""
        systems, people, centre = Systems(self), People(self), Centre(self)
        return [
            Route("/v1/consents", systems.capture, methods=["POST"]),
            Route("/v1/links", systems.make_links, methods=["POST"]),
            Route("/v1/notices", systems.notices, methods=["GET"]),
            Route("/v1/notices/{notice_id}/{version}/{language_code}", systems.notice, methods=["GET"]),
            Route("/v1/preferences/{link}", people.preferences, methods=["GET"]),
            Route("/v1/preferences/{link}", people.change, methods=["PATCH"]),
            Route("/v1/preferences/{link}/receipt", people.receipt, methods=["GET"]),
            Route("/v1/preferences/{link}/export", people.export, methods=["GET"]),
            Route("/v1/webhooks", systems.destinations, methods=["GET"]),
            Route("/v1/webhooks", systems.add_destination, methods=["POST"]),
            Route("/v1/webhooks/{destination_id}", systems.remove_destination, methods=["DELETE"]),
            Route("/v1/webhooks/{destination_id}/deliveries", systems.deliveries, methods=["GET"]),
            Route("/v1/webhooks/{destination_id}/redeliver", systems.redeliver, methods=["POST"]),
            Route("/preferences/{link}", centre.preferences_page, methods=["GET"]),
            Route("/preferences/{link}", centre.choose, methods=["POST"]),
            Route("/preferences/{link}/delete", centre.delete_page, methods=["GET"]),
            Route("/preferences/{link}/delete", centre.delete, methods=["POST"]),
            Route("/unsubscribe/{link}", centre.unsubscribe_page, methods=["GET"]),
            Route("/unsubscribe/{link}", centre.unsubscribe, methods=["POST"]),
            Route("/confirm/{link}", centre.confirm_page, methods=["GET"]),
            Route("/confirm/{link}", centre.confirm, methods=["POST"]),
            Route("/thanks", centre.thanks, methods=["GET"]),
            Route("/notices/{notice_id}/{version}/{language_code}", centre.notice_page, methods=["GET"]),
            Route("/.well-known/gpc.json", systems.gpc, methods=["GET"]),
        ]
