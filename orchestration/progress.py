"""The progress display of long work: a line per stage on a terminal, plain lines elsewhere."""

import time
from typing import Protocol


class Display(Protocol):
    """Where a run shows how far it is."""

    def begin(self, stage: str) -> None: ...

    def end(self, stage: str) -> None: ...

    def advance(self, stage: str, done: int, total: int) -> None: ...


class Silent:
    """Shows nothing: for `--json`, schedules and tests."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None: ...

    def begin(self, stage: str) -> None: ...

    def end(self, stage: str) -> None: ...

    def advance(self, stage: str, done: int, total: int) -> None: ...


class RichDisplay:
    """Bars on a terminal; on a pipe, one line when a stage begins and one when it ends."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, object] = {}
        self._began: dict[str, float] = {}

    def __enter__(self) -> "RichDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, stage: str) -> None:
        self._began[stage] = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(f"{stage} ...", highlight=False)
        self._tasks.setdefault(stage, self._progress.add_task(stage, total=None))

    def end(self, stage: str) -> None:
        seconds = time.monotonic() - self._began.get(stage, time.monotonic())
        task = self._tasks.pop(stage, None)
        if task is not None:
            self._progress.remove_task(task)  # type: ignore[arg-type]
        self._console.print(f"[green]done[/] {stage} [dim]{seconds:.1f} s[/]", highlight=False)

    def advance(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self.begin(stage)
        self._progress.update(self._tasks[stage], completed=done, total=total)  # type: ignore[arg-type]
        if total and done >= total:
            self.end(stage)
