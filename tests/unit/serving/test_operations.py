"""Limits, counts, the log of personal reads, readiness, traces: what a running service keeps of itself."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from consent.ledger.opening import open_ledger
from serving import keys, requests
from serving.app import create_app
from serving.keys import Caller as Known
from serving.operations import counts, read_log
from serving.operations.counts import Counts
from serving.operations.limits import BURST_SECONDS, DEFAULT_PER_SECOND, Limits
from serving.operations.post import Post
from serving.operations.read_log import PersonalRead, ReadLog
from serving.operations.traces import Traces
from serving.problems import ProblemError
from tests.unit.feature_repo.published_home import ADA, BRAM, CLEO
from tests.unit.serving.open_shop import AT, Caller, availability, open_shop, train
from tests.unit.serving.test_app import DECIDED_AT_ZERO, problem
from tests.unit.serving.test_features import ask, online
from tests.unit.serving.told_spans import ToldProvider
from troth.clock import FixedClock
from troth.home import Home

SECOND = 1_000_000_000


class Shop:
    """A service over the small retailer, and callers with keys."""

    def __init__(self, root: Path, post: Post | None = None, at: Any = AT, **tables: Any) -> None:
        self.home = open_shop(root, **({"ftr_subject_standing": DECIDED_AT_ZERO} | tables)).home
        self.ledger = open_ledger(self.home, FixedClock(AT))
        train(self.home)
        self.post = post or Post(self.home, wall=FixedClock(AT))
        self.app: Starlette = create_app(self.home, FixedClock(at), post=self.post)

    def caller(self, name: str = "test", **changes: Any) -> Caller:
        made = {"purposes": keys.ALL_PURPOSES, "at": AT, "scopes": ["metrics"]} | changes
        return Caller(self.app, keys.make_key(self.home, name, **made))

    def log(self) -> list[dict[str, Any]]:
        path = self.home.root / "logs" / read_log.FILE_NAME
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def metrics(self) -> dict[tuple[str, Mapping[str, str]], float]:
        told = self.caller("prometheus", purposes=[]).get("/metrics")
        assert told.status_code == 200, told.text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value  # type: ignore[misc]
            for family in text_string_to_metric_families(told.text)
            for sample in family.samples
        }


def known(name: str = "till", per_second: float | None = 5.0) -> Known:
    return Known(name=name, key_hash="", purposes=(), made_at=AT, requests_per_second=per_second)


def admitted(limits: Limits, caller: Known) -> bool:
    try:
        limits.take(caller)
    except ProblemError:
        return False
    return True


@settings(max_examples=50)
@given(st.floats(0.5, 1_000), st.lists(st.floats(0, 3), max_size=60))
def test_nobody_gets_more_than_a_burst_and_what_their_rate_gives_nor_less(
    per_second: float, pauses: list[float]
) -> None:
    import tempfile

    now = [SECOND]
    with tempfile.TemporaryDirectory() as folder:
        limits, caller = Limits(Path(folder) / "limits", lambda: now[0]), known(per_second=per_second)
        taken, began = 0, now[0]
        for pause in pauses:
            now[0] += int(pause * SECOND)
            was_idle = taken == 0
            came = admitted(limits, caller)
            taken += came
            assert came or not was_idle
            seconds = (now[0] - began) / SECOND
            assert taken <= max(1, per_second * BURST_SECONDS) + per_second * seconds * (1 + 1e-6) + 1
        now[0] += int((BURST_SECONDS + 2 / per_second) * SECOND)
        assert admitted(limits, caller)  # who was silent is never refused


def test_workers_share_buckets_and_callers_do_not(tmp_path: Path) -> None:
    now = [7 * SECOND]
    one, other = (Limits(tmp_path / "limits", lambda: now[0]) for _ in range(2))
    came = [admitted(each, known()) for _ in range(6) for each in (one, other)]
    assert came == [True] * 10 + [False] * 2
    assert admitted(other, known("shop"))
    now[0] += SECOND
    assert [admitted(other, known()) for _ in range(6)] == [True] * 5 + [False]


def test_after_the_machine_was_started_anew_old_numbers_hold_nobody_up(tmp_path: Path) -> None:
    for _ in range(10):
        assert admitted(Limits(tmp_path / "limits", lambda: 900 * SECOND), known())
    assert admitted(Limits(tmp_path / "limits", lambda: SECOND), known())


def test_more_callers_than_there_is_room_for_are_still_answered(tmp_path: Path) -> None:
    limits = Limits(tmp_path / "limits", lambda: SECOND)
    assert all(admitted(limits, known(f"holder-{number}")) for number in range(6_000))


def test_who_asks_too_often_is_told_when_to_come_again_and_nobody_else_is(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    slow, free = shop.caller("slow", requests_per_second=0.5), shop.caller("free")
    first, second = slow.get("/v1/availability?sku=SKU-00001"), slow.post("/v1/features", json=ask())
    assert (first.status_code, first.headers["ratelimit"]) == (200, '"caller";r=0;t=2')
    assert problem(second) == (429, "too_many_requests")
    assert (second.headers["retry-after"], second.headers["ratelimit-policy"]) == ("2", '"caller";q=1;w=2')
    assert json.loads(slow.post("/get-online-features", json=online()).json())["class"] == "FeastError"
    told = free.get("/v1/availability?sku=SKU-00001")
    assert (told.status_code, "ratelimit" in told.headers) == (200, False)
    assert slow.get("/v1/health").status_code == 200
    found = shop.metrics()
    assert found["troth_rate_limited_total", (("route", "/v1/features"),)] == 1  # type: ignore[index]


def test_the_limit_of_everybody_is_one_nobody_meets_by_chance(tmp_path: Path) -> None:
    limits = Limits(tmp_path / "limits", lambda: SECOND)
    came = [admitted(limits, known(per_second=None)) for _ in range(int(DEFAULT_PER_SECOND * BURST_SECONDS) + 1)]
    assert came.count(False) == 1


def test_a_limit_that_is_none_makes_no_key(tmp_path: Path) -> None:
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(Exception, match="API key: expected a limit above nothing"):
            keys.make_key(Home(tmp_path), "till", [], AT, ["events"], wrong)


def test_counts_of_workers_are_summed_and_a_worker_that_ends_leaves_them_to_the_next(tmp_path: Path) -> None:
    one, other = Counts(tmp_path), Counts(tmp_path)
    for each in (one, one, other):
        each.add(("reads", "recommend_v1", "allowed"), 2)
        each.observe(("http", "GET", "/v1/health", "200"), 0.002)
    one.close()
    heir = Counts(tmp_path)
    heir.add(("reads", "recommend_v1", "allowed"))
    found = counts.read(tmp_path)
    assert found["reads", "recommend_v1", "allowed"] == 7
    assert found["http", "GET", "/v1/health", "200", "0.0025"] == 3
    assert found["http", "GET", "/v1/health", "200", "sum"] == pytest.approx(0.006)
    assert len(list(tmp_path.iterdir())) == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20))))
def test_a_histogram_counts_each_time_once(seen: list[tuple[str, float]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        mine = Counts(Path(folder))
        for name, seconds in seen:
            mine.observe(("http", name), seconds)
        found = counts.read(Path(folder))
        mine.close()
    for name in "abc":
        times = [seconds for each, seconds in seen if each == name]
        buckets = {labels[-1]: value for labels, value in found.items() if labels[1] == name and labels[-1] != "sum"}
        assert sum(buckets.values()) == len(times)
        assert found.get(("http", name, "sum"), 0) == pytest.approx(sum(times))
        for bound in counts.BOUNDS:
            below = sum(value for told, value in buckets.items() if told != counts.LAST and float(told) <= bound)
            assert below == sum(seconds <= bound for seconds in times)


def test_where_there_is_no_room_for_another_name_the_sum_is_kept_and_nothing_breaks(tmp_path: Path) -> None:
    mine = Counts(tmp_path)
    for number in range(counts.RECORDS + 10):
        mine.add(("reads", f"{number}"))
    assert sum(counts.read(tmp_path).values()) == counts.RECORDS + 10
    assert len(counts.read(tmp_path)) == counts.RECORDS


def test_metrics_tell_requests_reads_refusals_ages_and_lags_and_name_nobody(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    caller = shop.caller()
    caller.get(f"/v1/customers/{ADA}/features?service=recommend_v1")
    caller.post("/v1/features", json=ask())
    caller.get(f"/nowhere/{ADA}")
    caller.request("BREW", "/v1/features")
    found = shop.metrics()

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]  # type: ignore[index]

    route = "/v1/customers/{customer_id}/features"
    assert value("troth_http_request_seconds_count", method="GET", route=route, status="200") == 1
    assert value("troth_http_request_seconds_bucket", method="GET", route=route, status="200", le="+Inf") == 1
    assert value("troth_http_request_seconds_count", method="GET", route="unknown", status="404") == 1
    assert value("troth_http_request_seconds_count", method="OTHER", route="/v1/features", status="405") == 1
    assert value("troth_feature_reads_total", service="recommend_v1", reason="allowed") == 2
    assert value("troth_feature_reads_total", service="recommend_v1", reason="withdrawn") == 1
    assert value("troth_feature_age_seconds_sum", service="recommend_v1") == 2 * 3_600
    assert value("troth_view_lag_seconds", view="customer_purchases") == 3_600
    assert value("troth_view_lag_limit_seconds", view="customer_purchases") == 30 * 3_600
    late = {name: value("troth_view_late", view=name) for name in ("customer_purchases", "availability")}
    assert late == {"customer_purchases": 0, "availability": 1}, "an hour is long for stock"
    assert (value("troth_ledger_size"), value("troth_standing_lag_events")) == (0, 0)
    assert value("troth_read_log_failures_total") == 0, "told before the first, so that its rise is seen"
    text = shop.caller("again", purposes=[]).get("/metrics").text
    assert not any(who in text for who in (ADA, BRAM, CLEO, "prometheus", "nowhere"))


def test_metrics_are_for_a_key_of_their_scope(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    assert problem(shop.caller(scopes=["admin"]).get("/metrics")) == (403, "scope_not_allowed")
    assert problem(Caller(shop.app).get("/metrics")) == (401, "no_key")
    opened = shop.caller().get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


def test_a_service_is_ready_but_for_the_board_and_says_so(tmp_path: Path) -> None:
    told = Caller(Shop(tmp_path).app).get("/v1/ready")
    assert (told.status_code, told.json()) == (503, {"is_ready": False, "reasons": ["board_missing"]})


def test_a_home_without_stock_is_ready_without_a_board(tmp_path: Path) -> None:
    shop = Shop(tmp_path, availability=availability().clear())
    told = Caller(shop.app).get("/v1/ready")
    assert (told.status_code, told.json()) == (200, {"is_ready": True, "reasons": []})


def test_a_service_whose_views_are_late_is_ready_and_says_which_in_its_health(tmp_path: Path) -> None:
    shop = Shop(tmp_path, at=AT + timedelta(hours=40), availability=availability().clear())
    caller = Caller(shop.app)
    assert caller.get("/v1/ready").json()["is_ready"]
    told = caller.get("/v1/health").json()
    assert (told["status"], {"customer_purchases", "sku_location_availability"} <= set(told["late_views"])) == (
        "ok",
        True,
    )


def test_a_service_that_is_being_stopped_is_not_ready_and_still_answers(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.post.is_stopping = True
    assert "stopping" in Caller(shop.app).get("/v1/ready").json()["reasons"]
    assert shop.caller().get("/v1/availability?sku=SKU-00001").status_code == 200


def test_a_service_without_ledger_or_with_old_standing_is_not_ready(tmp_path: Path) -> None:
    old = Shop(tmp_path / "old", at=AT + timedelta(days=8))
    assert "projection_stale" in Caller(old.app).get("/v1/ready").json()["reasons"]
    lost = Shop(tmp_path / "lost")
    lost.ledger.close()
    for file in lost.home.root.glob("ledger.db*"):
        file.unlink()
    assert "ledger_unreadable" in Caller(lost.app).get("/v1/ready").json()["reasons"]
    empty = Home(tmp_path / "empty")
    told = Caller(create_app(empty, FixedClock(AT))).get("/v1/ready")
    assert (told.status_code, told.json()["is_ready"]) == (503, False)


def test_each_request_that_reads_a_personal_view_leaves_one_line_that_names_nobody(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    caller = shop.caller("web shop")
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    caller.post("/v1/features", json=ask(), headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    caller.get(f"/v1/customers/{BRAM}/features?service=churn_v1")
    caller.get("/v1/customers/email_ada/features?service=recommend_v1")
    caller.post("/get-online-features", json=online("campaign_email_v1"))
    caller.get(f"/v1/recommendations/{ADA}?allow_popular=true")
    caller.post("/v1/features", json=ask("popularity_v1", sku=["SKU-00001"]))
    caller.get("/v1/availability?sku=SKU-00001")
    lines = shop.log()
    told = [(each["route"], each["service"], each["asked"], each["allowed"], each["refused"]) for each in lines]
    assert told == [
        ("/v1/features", "recommend_v1", 3, 1, {"never_asked": 1, "withdrawn": 1}),
        ("/v1/customers/{customer_id}/features", "churn_v1", 1, 0, {"never_asked": 1}),
        ("/v1/customers/{customer_id}/features", "recommend_v1", 1, 1, {}),
        ("/get-online-features", "campaign_email_v1", 2, 1, {"never_asked": 1}),
        ("/v1/recommendations/{customer_id}", "recommend_context_v1", 1, 1, {}),
    ]
    assert lines[0] | {"refused": {}} == {
        "at": "2026-03-02T03:00:00Z", "request_id": trace_id, "caller": "web shop", "route": "/v1/features", "service": "recommend_v1",
        "purpose_code": "personalization", "channel_code": "*", "asked": 3, "allowed": 1, "refused": {}, "ledger_size": 0,
    }  # fmt: skip
    text = json.dumps(lines)
    assert not any(who in text for who in (ADA, BRAM, CLEO, "email_ada"))


def test_a_read_that_cannot_be_written_down_is_not_answered(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (shop.home.root / "logs").write_text("a file where a folder should be")
    told = shop.caller().post("/v1/features", json=ask())
    assert problem(told) == (503, "unavailable")
    assert "12345" not in told.text
    assert shop.metrics()["troth_read_log_failures_total", ()] == 1  # type: ignore[index]
    assert shop.caller().get("/v1/availability?sku=SKU-00001").status_code == 200


def a_read(number: int) -> PersonalRead:
    return PersonalRead(
        at=AT + timedelta(seconds=number), request_id=f"{number:032x}", caller="till", route="/v1/features", service="recommend_v1",
        purpose_code="personalization", channel_code="*", asked=1, allowed=1, refused={}, ledger_size=number,
    )  # fmt: skip


def test_a_full_log_is_put_aside_and_no_line_is_lost_by_whoever_writes(tmp_path: Path) -> None:
    logs = [ReadLog(tmp_path, most_bytes=2_000) for _ in range(3)]
    for number in range(60):
        logs[number % 3].write(a_read(number))
    files = sorted(tmp_path.iterdir())
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 4_000
    kept = [json.loads(line)["ledger_size"] for file in files for line in file.read_text().splitlines()]
    assert sorted(kept) == list(range(60))
    for log in logs:
        log.close()


def test_files_put_aside_long_ago_are_removed_and_counted_and_no_younger_one(tmp_path: Path) -> None:
    day = 86_400
    log = ReadLog(tmp_path, kept=timedelta(days=90))
    (tmp_path / "personal_reads-notes.jsonl").write_text("somebody's own\n")
    removed = {number: log.write(a_read(number * day)) for number in range(0, 200, 5)}
    files = list(tmp_path.glob("personal_reads-2*.jsonl"))
    assert sum(removed.values()) == 3, "of days 30, 60 and 90, on days 120, 150 and 180"
    assert [number for number, count in removed.items() if count] == [120, 150, 180]
    kept = {json.loads(line)["ledger_size"] // day for path in files for line in path.read_text().splitlines()}
    assert kept == set(range(90, 180, 5)), "a file is put aside a month after its first line at the latest"
    assert (tmp_path / "personal_reads-notes.jsonl").exists()
    log.close()


def test_what_was_removed_from_the_log_is_told(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (shop.home.root / "logs").mkdir()
    (shop.home.root / "logs" / "personal_reads-20250101T000000000000Z-1.jsonl").write_text("{}\n")
    shop.caller().post("/v1/features", json=ask())
    assert shop.metrics()["troth_read_log_removed_total", ()] == 1  # type: ignore[index]


def test_every_answer_carries_the_id_of_its_request(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    told = shop.caller().get("/v1/health", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    assert told.headers["x-request-id"] == trace_id
    forged = shop.caller().get("/v1/nope", headers={"traceparent": "00-anna@example.org-1-01"})
    assert len(forged.headers["x-request-id"]) == 32
    assert "anna" not in forged.headers["x-request-id"]


class Endless:
    """A body without an end, and how much of it was taken."""

    def __init__(self) -> None:
        self.taken = 0

    async def receive(self) -> dict[str, Any]:
        self.taken += 65_536
        assert self.taken < 64 * 1024 * 1024, "a route reads without a limit"
        return {"type": "http.request", "body": b" " * 65_536, "more_body": True}


def routes(app: Starlette) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, route.path


@pytest.mark.parametrize("kind", ["application/json", "application/msgpack", "application/x-www-form-urlencoded"])
def test_every_route_gives_up_a_body_without_an_end(kind: str, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    key = keys.make_key(shop.home, "all", keys.ALL_PURPOSES, AT, keys.SCOPES)
    for method, path in routes(shop.app):
        endless, sent = Endless(), []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        plain = path.replace("{", "").replace("}", "")
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": plain, "raw_path": plain.encode(), "query_string": b"",
            "headers": [(b"authorization", f"Bearer {key}".encode()), (b"content-type", kind.encode())], "scheme": "http", "server": ("x", 1),
        }  # fmt: skip
        asyncio.run(shop.app(scope, endless.receive, send))
        assert sent[0]["status"] < 500 or path in ("/v1/ready", "/v1/orders"), (method, path)
        assert endless.taken <= requests.MOST_BYTES + 2 * 65_536, (method, path)


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def never() -> Any:
        await asyncio.sleep(3_600)

    request = Request({"type": "http", "method": "POST", "headers": []}, never)
    with pytest.raises(ProblemError, match="body: expected it whole") as raised:
        asyncio.run(requests.body(request, seconds=0.01))
    assert raised.value.details.status == 408


def test_a_request_is_a_span_under_its_callers_that_names_route_status_and_caller_and_no_person(tmp_path: Path) -> None:
    provider = ToldProvider()
    home = Home(tmp_path)
    shop = Shop(tmp_path, Post(home, Traces(provider), FixedClock(AT)))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    asked = f"/v1/customers/{ADA}/features?service=recommend_v1"
    shop.caller("web shop").get(asked, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    (span,) = provider.spans
    assert (span.name, span.ended) == ("GET /v1/customers/{customer_id}/features", True)
    assert f"{span.parent.trace_id:032x}" == trace_id
    assert span.attributes == {
        "http.request.method": "GET", "url.scheme": "http", "http.route": "/v1/customers/{customer_id}/features",
        "http.response.status_code": 200, "troth.caller": "web shop",
    }  # fmt: skip


def test_without_an_sdk_nothing_is_traced(tmp_path: Path) -> None:
    assert Post(Home(tmp_path)).traces is None
