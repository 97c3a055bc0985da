"""Who of the staff looked at whom, why, and what they did: a line each in `logs/console_looks.jsonl`, written before the page is sent.

People are named by the public key the ledger calls them by, which leads nowhere without the home's token key; staff by their account.
"""

from datetime import datetime
from pathlib import Path

from consent.log.entry import subject_key
from serving.operations.read_log import Line, ReadLog

FILE_NAME = "console_looks.jsonl"
MOST_REASON = 200


class Look(Line, frozen=True, kw_only=True):
    """One look or act. `subject_key` is hexadecimal; None where it was about nobody alone. `allowed` and `reason_code` are standing's answer."""

    request_id: str
    staff: str
    page: str
    act: str
    subject_key: str | None = None
    purpose_code: str | None = None
    allowed: bool = True
    reason_code: str | None = None
    why: str | None = None


class Looks:
    """The log of a home."""

    def __init__(self, folder: Path) -> None:
        self._log = ReadLog(folder, file_name=FILE_NAME)

    def write(
        self,
        at: datetime,
        request_id: str,
        staff: str,
        page: str,
        act: str,
        subject_id: str | None = None,
        purpose_code: str | None = None,
        allowed: bool = True,
        reason_code: str | None = None,
        why: str | None = None,
    ) -> None:
        """Raises: ServingError when it cannot be written down."""
        self._log.write(
            Look(
                at=at,
                request_id=request_id,
                staff=staff,
                page=page,
                act=act,
                subject_key=None if subject_id is None else subject_key(subject_id).hex(),
                purpose_code=purpose_code,
                allowed=allowed,
                reason_code=reason_code,
                why=why,
            )
        )

    def close(self) -> None:
        self._log.close()
