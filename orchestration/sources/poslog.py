"""POSLog documents (ARTS, now OMG) as rows of text: the XML of receipts, and nothing of contracts or types.

Local names only, so that any namespace reads, or none. One transaction is in memory at a time. Of about 30 us a sold
line costs on one core, libxml2 takes a quarter; the rest is walking its elements.
"""

import codecs
import re
from decimal import Decimal
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from lxml import etree

from orchestration.sources.contract import UnreadableFile
from orchestration.sources.encoding import as_utf8, from_encoding

# What the reader takes from a line, in the order of its rows; money and dates are still text.
_KEY = ("store_code", "workstation_code", "sequence_number", "business_date")
LINE_COLUMNS = (
    *("record_offset", *_KEY, "line_number", "line_type", "is_voided", "entry_method", "is_weighed"),
    *("sku", "gtin", "quantity", "unit_price", "discount", "net", "tax", "original_store_code"),
    *("original_workstation_code", "original_sequence_number", "original_business_date"),
    *("original_order_name", "disposition"),
)
RECEIPT_COLUMNS = (
    *("record_offset", *_KEY, "transaction_type", "began_at", "ended_at", "operator_code", "currency_code"),
    *(
        "is_voided",
        "is_training",
        "net",
        "tax",
        "gross",
        "tendered",
        "loyalty_card_number",
        "payment_token",
        "order_name",
    ),
)
_TOTALS = {
    "TransactionNetAmount": "net",
    "TransactionTaxAmount": "tax",
    "TransactionGrossAmount": "gross",
    "TransactionGrandAmount": "grand",
}
_GOODS = {"Sale": "sale", "SaleForDelivery": "sale", "SaleForPickup": "sale", "Return": "return"}
_NESTED = frozenset({"POSIdentity", "Quantity", "Tax", "TransactionLink"})
_GTIN_TYPES = frozenset({"GTIN", "UPC", "EAN"})
_Key = tuple[str | None, str | None, str | None, str | None]
_NO_KEY: _Key = (None, None, None, None)
_AMOUNTS = ("Quantity", "DiscountAmount", "ExtendedDiscountAmount", "ExtendedAmount")
_AMOUNT = re.compile(r"[+-]?[0-9]{1,12}(\.[0-9]{1,4})?")
_CARD_ELEMENTS = frozenset({"LoyaltyCardNumber", "LoyaltyID", "LoyaltyAccountID"})
_VOID_STATES = frozenset({"Voided", "PostVoided", "Cancelled", "Suspended", "SuspendedDeleted", "Failed"})
_PIECES = frozenset({"EA", "Each", "EACH", "PCE", "H87", "C62"})
_ENCODINGS = frozenset({"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252"})
_LARGEST_RECEIPT = 8_000_000  # bytes; libxml2 refuses a text above 10 MB
_DECLARATION = re.compile(rb"\s*<\?xml\b[^>]{0,200}\?>")
_DECLARED = re.compile(rb"""encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_START = re.compile(rb"<(?:[\w.-]+:)?Transaction(?=[\s/>])")
_END = re.compile(rb"</(?:[\w.-]+:)?Transaction\s*>")
_LINE_START = re.compile(rb"<(?:[\w.-]+:)?LineItem(?=[\s/>])")
_PREFIX = re.compile(rb"""(?:</?|\s)([A-Za-z_][\w.-]*):[\w.-]+""")
_SAFE: dict[str, Any] = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
    "encoding": "utf-8",
}


def read_receipts(path: Path) -> "Receipts":
    """Transactions and lines of a POSLog document: ARTS 2.x to 6 and dialects of them.

    Elements nobody here knows are left out, except a line that carries an `ExtendedAmount`: money must not vanish. In a
    damaged document each transaction is read for itself: the whole ones are kept, the others become faults.

    Raises: UnreadableFile for a document that is no POSLog, is in an encoding we do not read, or brings a DOCTYPE: no
    till needs one, and entities are how XML is made to expand or to fetch.
    """
    data = _prepared(path)
    receipts = Receipts()
    try:
        root = receipts.take_whole(data)
    except etree.XMLSyntaxError:
        receipts = Receipts()
        receipts.take_pieces(data)
        root = ""
    if not receipts.position and root != "POSLog":
        raise UnreadableFile(f"{path.name}: expected a POSLog document, found none. Ask the sender for the file again.")
    return receipts


def _prepared(path: Path) -> bytes:
    """The document in UTF-8, without XML declaration."""
    found = path.read_bytes()
    data = as_utf8(found)
    has_mark = data is not found  # then the declaration is not asked
    declaration = _DECLARATION.match(data)
    if declaration:
        data = data[declaration.end() :]
        declared = _DECLARED.search(declaration.group())
        if declared and not has_mark:
            data = _transcoded(path.name, data, declared.group(1).decode())
    if b"<!DOCTYPE" in data:
        raise UnreadableFile(
            f"{path.name}: expected a document without DOCTYPE, found one. Ask the sender to leave it out."
        )
    return data


def _transcoded(name: str, data: bytes, encoding: str) -> bytes:
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        codec = "unknown"
    if codec not in _ENCODINGS:
        raise UnreadableFile(
            f"{name}: expected UTF-8, UTF-16, ISO-8859-1, ISO-8859-15 or Windows-1252, found {encoding} declared. "
            "Ask the sender for UTF-8."
        )
    return data if codec in ("utf-8", "ascii") else from_encoding(data, codec)


class _Names(dict[Any, str]):
    """Local names by tag: `{namespace}Sale` and `Sale` are both Sale."""

    def __missing__(self, tag: Any) -> str:
        name = tag.rpartition("}")[2] if isinstance(tag, str) else ""
        self[tag] = name
        return name


class Receipts:
    """Rows of the transactions read so far, and what was set aside."""

    def __init__(self) -> None:
        self.names = _Names()
        self.faults: list[tuple[int, str, str]] = []  # position, reason and detail of transactions set aside
        self.line_faults: list[tuple[int, str, str]] = []
        self.receipts: list[tuple[Any, ...]] = []
        self.lines: list[tuple[Any, ...]] = []
        self.paid: list[str] = []  # amounts tendered, of the transaction at hand
        self.position = 0  # transactions met
        self.line_position = 0  # line items met

    def take_whole(self, data: bytes) -> str:
        """Every transaction of a sound document, one at a time in memory. Returns the root's name."""
        context = etree.iterparse(BytesIO(data), events=("end",), tag="{*}Transaction", **_SAFE)
        for _, element in context:
            parent = element.getparent()
            if next(element.iterancestors("{*}Transaction"), None) is not None:
                continue
            self.take(element)
            element.clear()
            while parent is not None and element.getprevious() is not None:
                del parent[0]
        return self.names[context.root.tag]

    def take_pieces(self, data: bytes) -> None:
        """Every whole transaction of a damaged document."""
        prefixes = set(_PREFIX.findall(data)) - {b"xml", b"xmlns"}
        opening = b"<r" + b"".join(b' xmlns:%s="urn:%s"' % (prefix, prefix) for prefix in sorted(prefixes)) + b">"
        parser = etree.XMLParser(**_SAFE)
        starts = [match.start() for match in _START.finditer(data)]
        for start, stop in pairwise([*starts, len(data)]):
            ends = [match.end() for match in _END.finditer(data, start, stop)]
            piece = data[start : ends[-1] if ends else stop]
            is_last = stop == len(data)
            fault = _piece_fault(piece, bool(ends), is_last)
            if fault is None:
                try:
                    root = etree.fromstring(opening + piece + b"</r>", parser)
                except etree.XMLSyntaxError:
                    fault = ("not_well_formed", "expected a well-formed transaction")
                else:
                    self.take(root[0])
                    continue
            self.position += 1
            self.line_position += len(_LINE_START.findall(piece))
            self.faults.append((self.position, *fault))
        if starts and not self.faults:
            if re.search(rb"</(?:[\w.-]+:)?POSLog\s*>", data[starts[-1] :]):
                self.faults.append((0, "not_well_formed", "expected nothing but transactions in the document"))
            else:
                self.faults.append((self.position + 1, "truncated", "expected the end of the document"))

    def take(self, transaction: Any) -> None:
        """One transaction: its head, and the lines of a retail transaction."""
        self.position += 1
        parts = self.parts(transaction)
        body = parts.get("RetailTransaction")
        kind = None
        if body is not None:
            kind = "retail"
        elif any(name.endswith("ControlTransaction") for name in parts):
            kind = "control"
        key = self.key(parts)
        found: dict[str, str | None] = {}
        self.paid.clear()
        if body is not None:
            self.take_body(body, key, found)
        voided = transaction.get("CancelFlag") or ("true" if found.get("status") in _VOID_STATES else "false")
        began = _text(parts, "BeginDateTime")
        self.receipts.append(
            (
                *(self.position, *key, kind, began, _text(parts, "EndDateTime") or found.get("at") or began),
                *(_text(parts, "OperatorID"), _text(parts, "CurrencyCode")),
                *(voided, transaction.get("TrainingModeFlag") or "false"),
                *(found.get("net"), found.get("tax"), found.get("grand") or found.get("gross"), _sum(self.paid)),
                *(found.get("card"), found.get("token"), found.get("order")),
            )
        )

    def take_body(self, body: Any, key: _Key, found: dict[str, str | None]) -> None:
        """Lines and tenders of a retail transaction; `found` gets what belongs to the receipt as a whole."""
        names = self.names
        found["status"] = body.get("TransactionStatus")
        for child in body:
            name = names[child.tag]
            if name == "LineItem":
                self.take_line(child, key, found)
            elif name == "Total":
                total = _TOTALS.get(child.get("TotalType"))
                if total:
                    found.setdefault(total, child.text)
            elif name == "OrderReference":
                found.setdefault("order", child.text)
            elif name == "ReceiptDateTime":
                found.setdefault("at", child.text)
            elif name.startswith("Loyalty"):
                self.take_card(child, found)

    def take_line(self, line: Any, key: _Key, found: dict[str, str | None]) -> None:
        self.line_position += 1
        names = self.names
        number = None
        is_void = line.get("VoidFlag") or line.get("CancelFlag") or "false"
        for child in line:
            name = names[child.tag]
            if name == "SequenceNumber":
                number = child.text
            elif name in _GOODS:
                self.take_goods(child, _GOODS[name], (self.line_position, *key, number), line, is_void)
            elif name == "Tender":
                self.take_tender(child, is_void, found)
            elif name.startswith("Loyalty"):
                self.take_card(child, found)
            elif "ExtendedAmount" in self.parts(child):
                detail = "expected a Sale, a Return, a Tender, or a line without ExtendedAmount"
                self.line_faults.append((self.line_position, "unknown_element", detail))

    def take_goods(self, goods: Any, line_type: str, address: tuple[Any, ...], line: Any, is_void: str) -> None:
        """A Sale or a Return. Its line number stands before it, as in every POSLog seen."""
        names = self.names
        said: dict[str, str | None] = {}
        parts: dict[str, Any] = {}
        for child in goods:
            name = names[child.tag]
            said[name] = child.text
            if name in _NESTED:
                parts[name] = child
        tax = self.tax(goods) if "Tax" in parts else "0"
        if line_type == "return":  # some dialects say it once more with a minus
            said |= {name: _positive(said.get(name)) for name in _AMOUNTS}
            tax = _positive(tax)
        quantity, entry = said.get("Quantity"), line.get("EntryMethod")
        is_weighed = quantity is not None and "." in quantity and self.is_weighed(parts["Quantity"], line)
        identity, link = parts.get("POSIdentity"), parts.get("TransactionLink")
        is_gtin = identity is not None and identity.get("POSIDType") in _GTIN_TYPES
        self.lines.append(
            (
                *(*address, line_type, is_void, entry and entry.rpartition(":")[2], is_weighed),
                *(said.get("ItemID"), self.text_in(identity, "POSItemID") if is_gtin else None, quantity),
                said.get("RegularSalesUnitPrice") or said.get("ActualSalesUnitPrice"),
                said.get("ExtendedDiscountAmount") or said.get("DiscountAmount"),
                *(said.get("ExtendedAmount"), tax),
                *(_NO_KEY if link is None else self.key(self.parts(link))),
                *(said.get("OrderReference"), said.get("Disposition")),
            )
        )

    def tax(self, goods: Any) -> str | None:
        """Tax of a line: its one amount, or the sum of several."""
        return _sum([self.text_in(child, "Amount") or "?" for child in goods if self.names[child.tag] == "Tax"])

    def is_weighed(self, quantity: Any, line: Any) -> bool:
        """Whether a line says that its quantity is a measure, by a flag of its own or by a unit that is not a piece."""
        flags = {self.names[name]: value for name, value in line.items()}
        unit = quantity.get("UnitOfMeasureCode")
        return flags.get("weightItem") in ("true", "1") or (unit is not None and unit not in _PIECES)

    def take_tender(self, tender: Any, is_void: str, found: dict[str, str | None]) -> None:
        if is_void in ("true", "1"):
            return
        parts = self.parts(tender)
        amount = _text(parts, "Amount") or ""
        # Money given back, whether or not the till wrote the minus as well.
        self.paid.append(_negative(amount) if tender.get("TypeCode") == "Refund" else amount)
        if "TenderChange" in parts:
            self.paid.append(_negative(self.text_in(parts["TenderChange"], "Amount")))
        token = _text(parts, "TokenizedCard")
        if token is None and "CreditDebit" in parts:
            token = self.text_in(parts["CreditDebit"], "TokenizedCard")
        if token is not None:
            found.setdefault("token", token)

    def take_card(self, element: Any, found: dict[str, str | None]) -> None:
        for part in element.iter():
            if self.names[part.tag] in _CARD_ELEMENTS:
                found.setdefault("card", part.text)

    def parts(self, element: Any) -> dict[str, Any]:
        """Children by local name; of several with one name, the last."""
        names = self.names
        return {names[child.tag]: child for child in element}

    def text_in(self, element: Any, wanted: str) -> str | None:
        names = self.names
        for child in element:
            if names[child.tag] == wanted:
                return str(child.text or "")
        return None

    def key(self, parts: dict[str, Any]) -> _Key:
        store = _text(parts, "RetailStoreID")
        if store is None and "BusinessUnit" in parts:
            store = self.text_in(parts["BusinessUnit"], "UnitID")
        return store, _text(parts, "WorkstationID"), _text(parts, "SequenceNumber"), _text(parts, "BusinessDayDate")


def _piece_fault(piece: bytes, is_ended: bool, is_last: bool) -> tuple[str, str] | None:
    if len(piece) > _LARGEST_RECEIPT:
        return "too_long", f"expected a transaction of at most {_LARGEST_RECEIPT} bytes"
    if not is_ended:
        reason = "truncated" if is_last else "not_well_formed"
        return reason, "expected the end of the transaction"
    try:
        piece.decode()
    except UnicodeDecodeError:
        return "wrong_encoding", "expected UTF-8"
    return None


def _text(parts: dict[str, Any], name: str) -> str | None:
    part = parts.get(name)
    return None if part is None else part.text


def _positive(amount: str | None) -> str | None:
    return None if amount is None else amount.strip().removeprefix("-")


def _negative(amount: str | None) -> str:
    text = (amount or "").strip()
    return f"-{text.removeprefix('-')}" if text else ""


def _sum(amounts: list[str]) -> str | None:
    """Sum of amounts, None of none; what is no amount stays, for `conform` to set aside."""
    texts = [text for amount in amounts if (text := amount.strip())]
    if len(texts) < 2:
        return texts[0] if texts else None
    wrong = [text for text in texts if not _AMOUNT.fullmatch(text)]
    return wrong[0] if wrong else str(sum(Decimal(text) for text in texts))
