"""What a run may refuse, with the exit code it ends with."""

from troth.errors import TrothError

MISUSE, NOTHING_READABLE, STEP_FAILED = 2, 3, 4


class RunError(TrothError):
    """The run could not do what was asked. `code` is the exit code: MISUSE, NOTHING_READABLE or STEP_FAILED."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
