"""Identity: labelled sets beside plain Splink, the simulator's truth, stability over days, and growth to a million records."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from benchmarks import linkage
from benchmarks.harness import Measure, conditions
from troth.errors import TrothError
from troth.home import Home

if TYPE_CHECKING:
    from models.identity.resolving import Evidence

SUMMARY = "Who is who: labelled sets beside plain Splink; --scale small, medium (truth), stability, growth"
SCALES = ("labelled", "small", "medium", "stability", "growth")
SEED = 11
DAYS = 30
SIZES = (100_000, 1_000_000)
ROUNDS = 3


def measure(scale: str | None, data: Path | None = None) -> Iterator[Measure]:
    """`labelled`: F1 of pairs and of groups, and seconds, each beside plain Splink. `small`, `medium`: precision and recall against the
    simulator's truth, the reliability of probabilities, and receipts without a loyalty card tied by payment. `stability`: 30 daily increments against one full run. `growth`: seconds and
    memory at 100,000 and 1,000,000 records. Raises: TrothError for another scale."""
    match scale or "labelled":
        case "labelled":
            yield from _labelled(data)
        case "small" | "medium" as name:
            yield from _truth(name)
        case "stability":
            yield from _stability()
        case "growth":
            yield from _growth()
        case other:
            raise TrothError(
                f"identity, scale: expected one of {', '.join(SCALES)}, found {other}. Choose one of them."
            )


def _state(**more: Any) -> dict[str, Any]:
    from importlib.metadata import version

    return conditions(splink=version("splink"), load_1min=round(os.getloadavg()[0], 2), **more)


def _labelled(folder: Path | None) -> Iterator[Measure]:
    for name in linkage.NAMES:
        data = linkage.labelled(name, folder)
        if data is None:
            print(f"identity: no {name} at {folder or linkage.FOLDER}; give its folder with --data", file=sys.stderr)
            continue
        sides = [(linkage.ours(data), linkage.plain(data)) for _ in range(ROUNDS)]
        mine, theirs = sides[0]
        state = _state(
            set=name, records=data.records.height, rounds=ROUNDS, peer_settings="Splink's documentation, bar 0.5"
        )
        scores: dict[str, Callable[[linkage.Found, dict[str, str]], tuple[float, float, float]]] = {
            "pair_f1": lambda found, truth: linkage.pair_scores(found.pairs, truth),
            "cluster_f1": lambda found, truth: linkage.cluster_scores(found.groups, truth),
            "whole_cluster_f1": lambda found, truth: linkage.whole_scores(found.groups, truth),
        }
        for measured, score in scores.items():
            ours, peer = score(mine, data.truth), score(theirs, data.truth)
            here = {**state, "precision": ours[0], "recall": ours[1], "peer_precision": peer[0], "peer_recall": peer[1]}
            yield Measure(f"{name}_{measured}", ours[2], "F1", "higher", 1, "plain Splink", peer[2], here)
        seconds = [min(each[side].seconds for each in sides) for side in (0, 1)]
        yield Measure(f"{name}_seconds", seconds[0], "s", "lower", 1, "plain Splink", seconds[1], state)


def _simulated(root: Path, scale: str) -> Home:
    import simulator
    from orchestration import taking
    from orchestration.catalog import SOURCES

    home = Home(root)
    simulator.simulate_whole(home, simulator.SCALES[scale], SEED, lambda *_: None)
    with taking.Readers(home, os.cpu_count() or 1) as readers:
        readers.take([plan for source in SOURCES for plan in taking.plan(home, source.name)])
    return home


def _truth(scale: str) -> Iterator[Measure]:
    from models.identity.adopting import learn
    from models.identity.resolving import BAR_BITS, resolve
    from orchestration.identities import evidence_of
    from orchestration.stages import known_until

    with tempfile.TemporaryDirectory() as folder:
        home = _simulated(Path(folder), scale)
        began = time.perf_counter()
        evidence = evidence_of(home, known_until(home), asks=False)
        version, model = learn(home, evidence.records, adopt=True)
        found = resolve(evidence, model, home.key("token"), version)
        seconds = time.perf_counter() - began
        people = _people(home, evidence.owners)
        tied, loose = _tied(home, found.members, people), _tied(home, _without_rules(evidence, found.members), people)
    members = found.members.select("identity_ref", "customer_id")
    known = people.join(members, left_on="record_id", right_on="identity_ref").filter(pl.col("persons") == 1)
    groups, truth = (dict(known.select("record_id", column).iter_rows()) for column in ("customer_id", "person_id"))
    precision, recall, _ = linkage.cluster_scores(groups, truth)
    state = _state(scale=scale, seed=SEED, records=evidence.records.height, judged=known.height, compared=found.compared,
                   bar_probability=round(1 / (1 + 2**-BAR_BITS), 4), model=version)  # fmt: skip
    yield Measure("precision", precision, "share", "higher", 0.995, conditions={**state, **_by_household(known)})
    yield Measure(
        "recall", recall, "share", "higher", 0.95, conditions={**state, "missed_by_difference": _missed(known)}
    )
    table, error = _reliability(found.links, dict(people.select("record_id", "person_id").iter_rows()))
    yield Measure("calibration_error", error, "share", "lower", conditions={**state, "reliability": table})
    yield Measure("seconds", seconds, "s", "lower", conditions=state)
    state = {**state, **tied, "without_rules": loose, "outcomes": _outcomes(evidence, found.members)}
    share, right = tied["tied"] / max(tied["receipts_without_loyalty_card"], 1), tied["right"] / max(tied["tied"], 1)
    yield Measure("receipts_tied_by_payment", share, "share", "higher", conditions=state)
    yield Measure("receipts_tied_precision", right, "share", "higher", 0.995, conditions=state)


def _tied(home: Home, members: pl.DataFrame, people: pl.DataFrame) -> dict[str, int]:
    """Sales at tills without a loyalty card: how many there are, how many a payment card paid, how many are tied to a customer, and how many of
    those were bought by whom most records of the customer are about; of the others, how many by somebody of the same household."""
    from orchestration.raw import raw_rows

    whose = people.filter(pl.col("persons") == 1).join(members, left_on="record_id", right_on="identity_ref")
    main = (
        whose.group_by("customer_id", "person_id", "household_id")
        .len()
        .sort("len", "person_id", descending=[True, False])
    )
    main = main.unique("customer_id", keep="first", maintain_order=True).select(
        "customer_id", owner_id="person_id", home_id="household_id"
    )
    names = ("store_code", "workstation_code", "sequence_number", "business_date")
    till = raw_rows(home, "raw_pos__transactions", [*names, "loyalty_card_ref", "payment_ref"])
    till = till.with_columns(order_id="pos/" + pl.concat_str(pl.col(names).cast(pl.String), separator="/"))
    sold = pl.read_parquet(home.truth / "orders.parquet").select("order_id", "person_id")
    lives = pl.read_parquet(home.truth / "households.parquet").select("person_id", "household_id")
    bare = (
        till.filter(pl.col("loyalty_card_ref").is_null())
        .join(sold, on="order_id")
        .join(lives, on="person_id", how="left")
    )
    ties = members.filter(identity_type="payment").select("customer_id", payment_ref="identity_ref")
    tied = bare.join(ties, on="payment_ref").join(main, on="customer_id", how="left")
    is_right = (tied["person_id"] == tied["owner_id"]).fill_null(False)
    return {
        "receipts_without_loyalty_card": bare.height, "paid_by_card": bare["payment_ref"].count(), "payment_cards_tied": ties.height,
        "tied": tied.height, "right": int(is_right.sum()),
        "of_the_same_household": tied.filter(~is_right, pl.col("household_id") == pl.col("home_id")).height,
    }  # fmt: skip


def _without_rules(evidence: "Evidence", members: pl.DataFrame) -> pl.DataFrame:
    """Members as they were if nothing were asked of a payment card but that one customer alone was seen with it."""
    alone = (
        evidence.paid.drop_nulls("identity_ref").join(members, on=("identity_type", "identity_ref"))
        .group_by("payment_ref").agg(pl.col("customer_id").first(), pl.col("customer_id").n_unique().alias("customers"))
        .filter(pl.col("customers") == 1)
    )  # fmt: skip
    ties = alone.select(identity_type=pl.lit("payment"), identity_ref="payment_ref", customer_id="customer_id")
    return pl.concat([members.filter(pl.col("identity_type") != "payment"), ties], how="diagonal")


def _outcomes(evidence: "Evidence", members: pl.DataFrame) -> dict[str, int]:
    """What became of each payment card that some record shows and that paid without a loyalty card."""
    from models.identity.payments import judged

    found = judged(evidence, members.filter(pl.col("identity_type") != "payment"))
    return dict(found["outcome"].value_counts(sort=True).iter_rows())


def _people(home: Home, owners: pl.DataFrame) -> pl.DataFrame:
    """Whom each record is really about: record_id, person_id, persons (how many, an e-mail may be two people's), household_id, differences."""
    from orchestration.raw import raw_rows
    from troth.ids import tokeniser

    token = tokeniser(home.key("token"))
    truth = pl.read_parquet(home.root / "truth" / "records.parquet").filter(~pl.col("is_test"))
    members = raw_rows(home, "raw_loyalty__members", ["member_id", "card_ref"]).unique("member_id", keep="last")
    cards = dict(members.iter_rows())
    refs = [
        cards.get(key) if kind == "member" else token("account" if kind == "account" else "email", key)
        for kind, key in truth.select("record_type", "record_key").iter_rows()
    ]
    told = truth.with_columns(record_id=pl.Series(refs, dtype=pl.String)).join(
        owners.select("record_id"), on="record_id"
    )
    return told.group_by("record_id").agg(
        pl.col("person_id").first(), pl.col("person_id").n_unique().alias("persons"), pl.col("household_id").first(),
        pl.col("differences").list.explode(keep_nulls=False, empty_as_null=False).unique(),
    )  # fmt: skip


def _by_household(known: pl.DataFrame) -> dict[str, Any]:
    """How many of the customers who are two people are of one household."""
    mixed = known.group_by("customer_id").agg(pl.col("person_id").n_unique(), pl.col("household_id").n_unique())
    mixed = mixed.filter(pl.col("person_id") > 1)
    return {
        "customers_of_several_people": mixed.height,
        "of_one_household": mixed.filter(pl.col("household_id") == 1).height,
    }


def _missed(known: pl.DataFrame) -> dict[str, int]:
    """Records parted from most of their person's, by the differences planted in them, the ten commonest."""
    sizes = known.with_columns(size=pl.len().over("person_id", "customer_id"), most=pl.len().over("person_id"))
    parted = sizes.filter(pl.col("size") * 2 < pl.col("most") + 1, pl.col("most") > 1)
    counts = parted.explode("differences")["differences"].drop_nulls().value_counts(sort=True)
    return dict(counts.head(10).iter_rows())


def _reliability(links: pl.DataFrame, person: dict[str, str]) -> tuple[list[dict[str, Any]], float]:
    """By bin of probability: pairs, what was expected, what is so; and the expected calibration error over the bins."""
    same = [person.get(a) == person.get(b) for a, b in links.select("first_ref", "second_ref").iter_rows()]
    edges = [0.01, 0.05, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999]
    binned = links.select("probability").with_columns(
        same=pl.Series(same), bin=pl.Series(np.digitize(links["probability"], edges))
    )
    rows = (
        binned.group_by("bin")
        .agg(pl.len().alias("pairs"), pl.col("probability").mean(), pl.col("same").mean())
        .sort("bin")
    )
    error = float((rows["pairs"] * (rows["probability"] - rows["same"]).abs()).sum() / max(rows["pairs"].sum(), 1))
    bounds = [0.0, *edges, 1.0]
    return [
        {
            "from": bounds[at],
            "to": bounds[at + 1],
            "pairs": pairs,
            "expected": round(expected, 4),
            "found": round(found, 4),
        }
        for at, pairs, expected, found in rows.iter_rows()
    ], error


def _stability() -> Iterator[Measure]:
    from datetime import UTC

    from models.identity.adopting import learn
    from models.identity.changes import changes
    from models.identity.resolving import resolve
    from orchestration.identities import evidence_of
    from orchestration.stages import known_until

    with tempfile.TemporaryDirectory() as folder:
        home = _simulated(Path(folder), "small")
        last = known_until(home)
        days = [last - timedelta(days=back) for back in range(DAYS, -1, -1)]
        version, model = learn(home, evidence_of(home, days[0], asks=False).records, adopt=True)
        key, before, members, told, seconds, compared, idle = home.key("token"), None, None, [], [], [], 0
        for day in days:
            evidence = evidence_of(home, day, asks=False)
            began = time.perf_counter()
            found = resolve(evidence, model, key, version, before)
            seconds.append(time.perf_counter() - began)
            compared.append(found.compared)
            if members is not None:
                idle += _renamed_for_nothing(members, found.members)
                told.append(changes(members, found.members, day.astimezone(UTC).replace(tzinfo=None)))
            before, members = found.remembered, found.members
        began = time.perf_counter()
        full = resolve(evidence, model, key, version)
        whole_seconds = time.perf_counter() - began
    moved = pl.concat(told)
    kinds = dict(moved["change_type"].value_counts(sort=True).iter_rows())
    different = full.members.join(members, on=full.members.columns, how="anti", nulls_equal=True).height
    state = _state(days=DAYS, seed=SEED, identifiers=full.members.height, customers=full.members["customer_id"].n_unique(), changes=kinds,
                   pairs_first_day=compared[0], pairs_a_day_after=round(float(np.mean(compared[1:]))))  # fmt: skip
    yield Measure("identifiers_unlike_full_run", different, "identifiers", "lower", 0, conditions=state)
    listed = moved.filter(pl.col("change_type").is_in(["merged", "split", "regrouped", "renamed"]))
    reasons = [
        {"customer": row["from_customer_id"], "became": row["customer_id"], "why": f"{row['change_type']}: {row['reason']}", "when": str(row["changed_at"])}
        for row in listed.unique(["from_customer_id", "customer_id", "changed_at"], keep="first", maintain_order=True).to_dicts()
    ]  # fmt: skip
    yield Measure("ids_that_moved", len(reasons), "ids", "lower", conditions={**state, "every_id_that_moved": reasons})
    yield Measure("ids_moved_without_a_changed_cluster", idle, "ids", "lower", 0, conditions=state)
    yield Measure(
        "seconds_of_a_daily_increment",
        float(np.mean(seconds[1:])),
        "s",
        "lower",
        None,
        "a full run",
        whole_seconds,
        state,
    )


def _renamed_for_nothing(before: pl.DataFrame, after: pl.DataFrame) -> int:
    """Customers of the very same identifiers under another id."""
    old, new = (
        frame.sort("identity_ref").group_by("customer_id").agg(pl.col("identity_ref").str.join(" "))
        for frame in (before, after)
    )
    both = old.join(new, on="identity_ref", suffix="_after")
    return both.filter(pl.col("customer_id") != pl.col("customer_id_after")).height


def _growth() -> Iterator[Measure]:
    found = {}
    for size in SIZES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.identity", str(size)], capture_output=True, text=True, check=True
        )
        found[size] = json.loads(done.stdout.splitlines()[-1])
        for part in ("normalise", "learn", "resolve", "again"):
            yield Measure(f"{part}_{size}", found[size][part], "s", "lower", conditions=_state(**found[size]))
        yield Measure(f"memory_{size}", found[size]["gigabytes"], "GB", "lower", 8, conditions=_state(**found[size]))
    small, large = (sum(found[size][part] for part in ("normalise", "learn", "resolve")) for size in SIZES)
    exponent = float(np.log(large / small) / np.log(found[SIZES[1]]["records"] / found[SIZES[0]]["records"]))
    yield Measure(
        "growth_exponent", exponent, "n^", "lower", 1.2, conditions=_state(seconds_small=small, seconds_large=large)
    )


def crowd(records: int, seed: int = SEED) -> pl.DataFrame:
    """About so many records of accounts, members and guests of the simulator, with `person`: nobody trades, so it takes seconds."""
    from dataclasses import replace

    from simulator.people import NEVER, settle
    from simulator.places import found_places
    from simulator.products import stock_shelves
    from simulator.scale import SCALES

    people = int(records / 1.51)
    scale = replace(SCALES["medium"], people=people, stores=max(40, people // 1_000), skus=50)
    told = settle(scale, found_places(scale, seed), stock_shelves(scale, seed), seed)
    rng, number = np.random.default_rng([seed, 999]), np.arange(told.numbers)
    accounts = number[(told.account_day < NEVER) & told.duplicates.owns_account]
    members = number[(told.member_day < NEVER) & told.duplicates.owns_card]
    guests = number[(number < len(told)) & (rng.random(len(number)) < 0.45)]

    def part(
        kind: str, who: np.ndarray, prefix: str, email: str, phone: str, paid: float, born: str | None = None
    ) -> pl.DataFrame:
        def text(column: str) -> pl.Series:
            return told.text(column, who).cast(pl.String)

        place = "account_" if kind == "account" else prefix
        return pl.DataFrame({
            "record_id": [f"{kind}_{each:09d}" for each in who], "first_name": text(f"{prefix}first_name"), "last_name": text(f"{prefix}last_name"),
            "email": text(email), "phone": text(phone), "birth_date": text(born) if born else pl.Series([None] * len(who), dtype=pl.String),
            "street_address": text(f"{place}street"), "city": text(f"{place}city"), "region_code": text(f"{place}region"),
            "postal_code": text(f"{place}postal"), "person": text("person_id"),
            "payment": pl.select(pl.when(pl.Series(rng.random(len(who)) < paid)).then(text("payment"))).to_series(),
        })  # fmt: skip

    return pl.concat([
        part("account", accounts, "account_", "email", "phone", 0.5), part("card", members, "form_", "form_email", "form_phone", 0.4, "birth_date"),
        part("email", guests, "", "guest_email", "guest_phone", 0.8),
    ]).sort("record_id")  # fmt: skip


def _grown(size: int) -> dict[str, Any]:
    """Seconds of each part and peak memory of this process, which has done nothing else but make the records."""
    from models.identity.matching import Matcher
    from models.identity.normalise import normalised
    from models.identity.resolving import Evidence, resolve

    said = crowd(size)
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    times: dict[str, Any] = {"records": said.height, "gigabytes_of_making_records": round(made, 2)}

    def timed(name: str, began: float) -> None:
        times[name] = round(time.perf_counter() - began, 2)

    began = time.perf_counter()
    records = normalised(said.drop("person", "payment")).join(
        said.select("record_id", "payment"), on="record_id", maintain_order="left"
    )
    timed("normalise", began)
    owners = said.select(
        "record_id", identity_type=pl.col("record_id").str.extract("^([a-z]+)"), identity_ref="record_id"
    )
    proved = owners.select(
        "identity_type", "identity_ref", hub_identity_type="identity_type", hub_identity_ref="identity_ref", link_type=pl.lit("hub"),
        source_name=pl.lit("crowd"), linked_at=pl.lit(None, pl.Datetime("us")), is_test=pl.lit(False),
    )  # fmt: skip
    evidence = Evidence(
        records,
        owners,
        proved,
        owners.select("identity_type", "identity_ref", first_seen_at=pl.lit(None, pl.Datetime("us"))),
    )
    began = time.perf_counter()
    matcher = Matcher(records)
    matcher.learn()
    timed("learn", began)
    model = matcher.model
    del matcher
    began = time.perf_counter()
    found = resolve(evidence, model, b"benchmark key of 32 bytes length", "1")
    timed("resolve", began)
    customer = dict(found.members.select("identity_ref", "customer_id").iter_rows())
    precision, recall, _ = linkage.cluster_scores(customer, dict(said.select("record_id", "person").iter_rows()))
    began = time.perf_counter()
    resolve(evidence, model, b"benchmark key of 32 bytes length", "1", found.remembered)
    timed("again", began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {**times, "pairs_compared": found.compared, "keys": [each.key.name for each in model.keys], "gigabytes": round(peak, 2),
            "precision": round(precision, 4), "recall": round(recall, 4)}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_grown(int(sys.argv[1]))))
