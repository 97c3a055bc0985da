"""What is held about a person, for that person: a page to read, one JSON document, and tables; and apart from it what they gave us.

Found by the same walk that erases. What is not proved to be theirs is not in it, however near it lies.
"""

import csv
import hashlib
import html
import io
import json
import shutil
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from orchestration.catalog import SOURCES, contract_of
from orchestration.rights.copies import ABOUT, PACKAGES, exported_to
from orchestration.rights.held import BOOKS, KEPT, OF_STAFF, Held, held
from orchestration.rights.tables import rows_about
from orchestration.warehouse import PROJECT
from serving.activation.deliveries import Delivery
from serving.activation.recalling import deliveries_of
from serving.rights.persons import Person, resolve
from serving.rights.work import Holdings
from troth.clock import Clock, FixedClock
from troth.home import Home, write_atomically
from troth.published import POINTER, current

FORMAT = "troth access package 1"
_OURS = ("file_hash", "record_offset")  # how we keep a row, nothing about the person
_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{border:1px solid #767676;padding:.25rem .5rem;text-align:left;"
    "vertical-align:top}th{background:#f0f0f0}.wide{overflow-x:auto}h2{margin-top:2.5rem}"
)


def access(home: Home, clock: Clock, subjects: Sequence[str], *, portable: bool = False) -> Path:
    """Write everything held about a person into a new folder below `exports/access/`; `portable`: only what they gave us.

    `index.html` and `data.json` say the same; `tables/` holds a CSV per table. Raises: RightsError for nobody known.
    """
    document, identifiers = _collected(home, clock.now(), subjects, portable=portable)
    name = f"{clock.now():%Y%m%dT%H%M%S}-{hashlib.sha256(identifiers[0].encode()).hexdigest()[:12]}"
    folder = home.exports / PACKAGES / (f"{name}-portable" if portable else name)
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    draft.chmod(0o700)
    # Whose it is, so that an erasure finds it.
    write_atomically(draft / ABOUT, json.dumps({"identifiers": identifiers}).encode())
    for file, data in _files(document):
        write_atomically(draft / file, data)
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)
    return folder


def package(home: Home, clock: Clock, subjects: Sequence[str], *, portable: bool = False) -> bytes:
    """What `access` writes, as a zip of which nothing stays in the home. Raises: RightsError for nobody known."""
    document, _ = _collected(home, clock.now(), subjects, portable=portable)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in _files(document):
            archive.writestr(file, data)
    return packed.getvalue()


def holdings(home: Home, clock: Clock, subjects: Sequence[str], *, portable: bool = False) -> Holdings:
    """What would be in a package, counted and not told. Raises: RightsError for nobody known."""
    document, _ = _collected(home, clock.now(), subjects, portable=portable)
    named = ("identities", "online_features", "contact_points", "automated_decisions", "recipients")
    other = {name: len(document[name]) for name in named if name in document}
    if "consent" in document:
        other["identities_with_consent"] = len(document["consent"]["identities"])
    return Holdings(
        {table: len(told["rows"]) for table, told in document["given"].items()},
        {table: len(told["rows"]) for table, told in document.get("derived", {}).items()},
        other,
        document["not_included"],
    )


def _files(document: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    yield "data.json", (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
    yield "index.html", page(document).encode()
    for table, told in {**document["given"], **document.get("derived", {})}.items():
        yield f"tables/{table}.csv", _csv(told["rows"])


def access_document(home: Home, at: datetime, subjects: Sequence[str]) -> dict[str, Any]:
    """Everything held about a person, as values that JSON knows."""
    return _collected(home, at, subjects, portable=False)[0]


def _collected(
    home: Home, at: datetime, subjects: Sequence[str], *, portable: bool
) -> tuple[dict[str, Any], list[str]]:
    person = resolve(home, subjects)
    found = held(home, person)
    identifiers = [*person.customer_ids, *person.tokens, *found.spellings]
    document: dict[str, Any] = {
        "format": FORMAT,
        "made_at": at.isoformat(),
        "is_portable_part": portable,
        "not_included": _left_out(person),
        "given": {table: _given(table, rows) for table, rows in sorted(found.rows.items())},
    }
    if not portable:
        shared = set(person.shared_ids)
        own = [*(one for one in person.customer_ids if one not in shared), *(token for token in found.spellings)]
        document |= {
            "identities": _identities(home, person, found),
            "derived": _derived(home, own, person.tokens, shared),
            "online_features": _features(home, own),
            "contact_points": _contacts(home, found),
            "consent": _consent(home, at, person),
            "automated_decisions": _decisions(home),
            "processing": _processing(home),
            "recipients": _recipients(home, [*own, *(value for some in found.spellings.values() for value in some)]),
        }
    return document, list(dict.fromkeys(identifiers))


def _left_out(person: Person) -> str:
    if not person.unproved:
        return "Nothing."
    left_out = (
        f"{len(person.unproved)} contact(s) that we saw beside you in a record, such as a phone or a shared e-mail, or that look like yours: "
        "nobody proved that they are yours alone. Ask us with that contact itself, and prove that it is yours."
    )
    if not person.shared_ids:
        return left_out
    return f"{left_out} What we made of your records together with those that only look like yours is left out as well, until then."


def _given(table: str, rows: pl.DataFrame) -> dict[str, Any]:
    contract = contract_of(table)
    names = [name for name in rows.columns if name not in (*_OURS, *OF_STAFF)]
    return {
        "description": contract.description,
        "source": next(source.description for source in SOURCES if source.name == contract.source),
        "kept_because": BOOKS if table in KEPT else "Until you ask us to erase it, or its retention ends.",
        "columns": {
            c.name: {"description": c.description, "personal": c.personal} for c in contract.columns if c.name in names
        },
        "rows": _plain(rows.select(names).sort("received_at")),
    }


def _identities(home: Home, person: Person, found: Held) -> list[dict[str, Any]]:
    rows = pl.read_parquet(current(home, "customer_identities")).filter(
        pl.col("identity_ref").is_in(person.tokens), pl.col("customer_id").is_in(person.customer_ids)
    )
    return [
        {**row, "values": sorted(found.spellings.get(row["identity_ref"], ()))}
        for row in _plain(rows.sort("identity_type", "identity_ref"))
    ]


def _derived(home: Home, own: Sequence[str], tokens: Sequence[str], shared: Collection[str]) -> dict[str, Any]:
    """Rows of published tables about the person: what was made of what they gave. No row of a customer that may be two people."""
    told, tables = _descriptions(), {}
    for pointer in sorted(home.published.glob(f"*/{POINTER}")):
        table = pointer.parent.name
        rows = rows_about(table, pl.scan_parquet(current(home, table)), own, tokens)
        if "customer_id" in rows.columns:
            rows = rows.filter(~pl.col("customer_id").is_in(list(shared)).fill_null(False))
        if rows.height:
            described = told.get(table, {})
            tables[table] = {
                "description": described.get("description", f"What the model {table.removeprefix('pred_')} says."),
                "columns": {
                    column["name"]: {
                        "description": column.get("description", ""),
                        "purposes": column.get("config", {}).get("meta", {}).get("purposes", []),
                    }
                    for column in described.get("columns", [])
                },
                "rows": _plain(rows),
            }
    return tables


def _descriptions() -> dict[str, Any]:
    """Models and their columns as the dbt project describes them."""
    import yaml

    read = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    files = (yaml.load(path.read_text(), read) for path in sorted((PROJECT / "models").rglob("*.yml")))  # noqa: S506
    return {model["name"]: model for told in files for model in told.get("models", ())}


def _features(home: Home, own: Sequence[str]) -> dict[str, Any]:
    from feature_repo.catalogue import INDEXES, SUBJECT_GATE, VIEWS
    from feature_repo.store import online_store

    store = online_store(home.features)
    if not store.exists():
        return {}
    found = {}
    for view in (*VIEWS, *INDEXES):
        # What standing says in words is not told a second time in numbers.
        if (view.is_personal or view in INDEXES) and view is not SUBJECT_GATE:
            for (name, key), row in store.read([view], own).items():
                found[f"{name} {key}"] = {"description": view.description, **_jsonable(row.values)}
    store.close()
    return dict(sorted(found.items()))


def _contacts(home: Home, found: Held) -> dict[str, str]:
    from consent.vault import open_vault

    if not home.vault.exists():
        return {}
    with open_vault(home) as vault:
        return vault.get(found.spellings)


def _consent(home: Home, at: datetime, person: Person) -> dict[str, Any]:
    """What was said under each identity, what it allows now and why, with the evidence of the ledger."""
    from consent.ledger.opening import open_ledger
    from consent.receipts.shopper import shopper_receipt
    from consent.rule.explanations import explain
    from consent.rule.policy import read_policy
    from consent.rule.standing import standing

    policy, told = read_policy(), []
    with open_ledger(home, FixedClock(at)) as ledger:
        for token in person.tokens:
            if not ledger.leaves_of(token):
                continue
            pairs = [(code, channel) for code, purpose in policy.purposes.items() for channel in purpose.channels]
            standings = []
            for code, channel in sorted(pairs):
                found = standing(ledger, token, code, channel, at, policy=policy)
                words = explain(found, "shopper", policy, code, channel)
                standings.append({"purpose": code, "channel": channel, "is_allowed": found.is_allowed, "why": words})
            told.append(
                {
                    "subject_id": token,
                    "standing": standings,
                    "receipt": shopper_receipt(ledger, policy, token, at, _controller(home)),
                }
            )
    return {"identities": told}


def _controller(home: Home) -> Any:
    from consent.receipts.shopper import CONTROLLER_FILE, read_controller

    own = home.root / CONTROLLER_FILE.name
    return read_controller(own if own.exists() else CONTROLLER_FILE)


def _decisions(home: Home) -> list[dict[str, Any]]:
    """Models in use that may say something about a person, and for what."""
    from models import registry

    found = []
    for folder in sorted(home.artifacts.glob("*")):
        version = registry.pointed(home, folder.name) if folder.is_dir() else None
        if version:
            made = registry.manifest(home, folder.name, version)
            names = ("model", "description", "use_purpose_code")
            found.append(
                {
                    **{name: made.get(name) for name in names},
                    "version": version,
                    "learned_from_people": made.get("training", {}).get("customers_kept"),
                }
            )
    return found


def _processing(home: Home) -> dict[str, Any]:
    controller = _controller(home)
    return {
        "controller": {
            name: getattr(controller, name)
            for name in ("name", "address", "contact", "email", "phone", "privacy_notice")
        },
        "authority": dict(controller.authority),
        "rights": list(controller.rights),
        "storage_locations": list(controller.storage_locations),
        "purposes": {
            code: {
                "personal_data": list(each.personal_data),
                "retention": each.retention,
                "recipients": list(each.recipients),
            }
            for code, each in controller.purposes.items()
        },
    }


def _recipients(home: Home, texts: Iterable[str]) -> list[str]:
    """Whoever was given the person: by legal name where a destination received them, for then the name is known (GDPR 15(1)(c))."""
    wanted = list(texts)
    sent = {f"activation:{each.delivery_id}": each for each in deliveries_of(home, wanted)}
    return [_received(sent[name]) if name in sent else name for name in exported_to(home, wanted)]


def _received(of: Delivery) -> str:
    when = f"{of.sent_at:%Y-%m-%d}" if of.sent_at else "not whole"
    return f"{of.recipient.legal_name} ({of.recipient.country}), {', '.join(of.purposes)}, {when}"


def _plain(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return [_jsonable(row) for row in rows.to_dicts()]


def _jsonable(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str | int | float | bool | None) else str(value) for name, value in row.items()
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def page(document: Mapping[str, Any]) -> str:
    """The document as one page: plain words, no script, nothing loaded."""
    parts = [
        f"<p>Made on {_text(document['made_at'])}.</p>",
        f"<h2>What is not in here</h2><p>{_text(document['not_included'])}</p>",
    ]
    if "consent" in document:
        parts.append("<h2>What we may do with your data, and why</h2>")
        for identity in document["consent"]["identities"]:
            parts.append(f"<h3>{_text(identity['subject_id'])}</h3><ul>")
            parts += [f"<li>{_text(each['why'])}</li>" for each in identity["standing"]]
            parts.append("</ul>")
        parts.append(_table("What we use data for, how long, and who receives it", [
            {"purpose": code, **{name: ", ".join(value) if isinstance(value, list) else value for name, value in each.items()}}
            for code, each in document["processing"]["purposes"].items()
        ]))  # fmt: skip
        parts.append(_table("Who was given your data", [{"recipient": each} for each in document["recipients"]]))
        parts.append(_table("What machines say about you", document["automated_decisions"]))
        parts.append(_table("How we know you", document["identities"]))
        parts.append(
            _table(
                "Contact data",
                [{"token": token, "value": value} for token, value in document["contact_points"].items()],
            )
        )
    for title, tables in (("What you gave us", document["given"]), ("What we made of it", document.get("derived", {}))):
        if tables:
            parts.append(f"<h2>{title}</h2>")
        for name, told in tables.items():
            notes = [told["description"], told.get("source", ""), told.get("kept_because", "")]
            parts.append(_table(name, told["rows"], " ".join(note for note in notes if note)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>What we hold about you</title><style>{_STYLE}</style></head><body><main><h1>What we hold about you</h1>"
        f"{''.join(parts)}</main></body></html>\n"
    )


def _table(title: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> str:
    head = f"<h3>{_text(title)}</h3>" + (f"<p>{_text(note)}</p>" if note else "")
    if not rows:
        return f"{head}<p>Nothing.</p>"
    names = list(rows[0])
    cells = "".join("<tr>" + "".join(f"<td>{_text(row.get(name))}</td>" for name in names) + "</tr>" for row in rows)
    titles = "".join(f'<th scope="col">{_text(name)}</th>' for name in names)
    return f'{head}<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{cells}</tbody></table></div>'


def _text(value: Any) -> str:
    return html.escape("" if value is None else str(value))
