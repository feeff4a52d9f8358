"""Progress on a terminal. The only module that loads rich."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.table import Column, Table
from rich.text import Text

from . import amounts
from .display import MAX_PARTS, Bar, Display, Parts, visible
from .meter import Meter
from .showing import clipboard_sequence

__all__ = ["TerminalDisplay"]

FRAME: Final = 0.1
"""Seconds between two pictures."""
LABEL: Final = 28
"""Columns for what a line is about."""
SETTLED: Final = 0.5
"""Seconds after which there is something to say about the rate."""


class TerminalDisplay(Display):
    """Bars at the bottom of standard error, lines for people above them."""

    is_interactive = True

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress: Progress | None = None
        self._bars: dict[TaskID, TerminalBar] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, text: str) -> None:
        # As `Text`, so that nothing in a file's name is read as markup; soft_wrap keeps long lines
        # whole for copying.
        self._console.print(Text(visible(text)), soft_wrap=True)

    def bar(self, label: str, event: str | None = None, /, **facts: object) -> Bar:
        if self._progress is None:
            self._progress = _Bars(
                SpinnerColumn(),
                _Field("label", max_width=LABEL),
                BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
                _Field("amount", justify="right", min_width=21),
                _Field("rate", justify="right", min_width=11),
                _Field("left", min_width=13),
                console=self._console,
                auto_refresh=False,
                transient=True,
                expand=True,
            )
            self._progress.start()
            self._tick()
        task = self._progress.add_task("", total=None, label=label, place=(0, 0))
        self._progress.update(task, place=(task, 0))
        now = asyncio.get_running_loop().time()
        bar = self._bars[task] = TerminalBar(self, task, now)
        return bar

    def copy(self, text: str) -> bool:
        self._console.file.write(clipboard_sequence(text))
        self._console.file.flush()
        return True

    def failed(self, message: str, code: int) -> None:
        self._console.print(
            Text("error: ", style="bold red") + Text(visible(message)), soft_wrap=True
        )

    def restore_terminal(self) -> None:
        self._console.show_cursor(True)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._bars.clear()

    def _tick(self) -> None:
        if self._progress is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for bar in self._bars.values():
            self._show(self._progress, bar.line, now)
            self._show_parts(self._progress, bar, now)
        self._progress.refresh()
        self._timer = loop.call_later(FRAME, self._tick)

    def _show(self, progress: Progress, line: _Line, now: float) -> None:
        progress.update(
            line.task, completed=line.done, total=line.total or None, **line.describe(now)
        )

    def _show_parts(self, progress: Progress, bar: TerminalBar, now: float) -> None:
        """Lines below the bar for the files that are on their way; as many as there ever were."""
        parts = bar.parts()[:MAX_PARTS] if bar.parts is not None else []
        for number, part in enumerate(parts):
            if number == len(bar.rows):
                place = (bar.line.task, number + 1)
                task = progress.add_task("", total=None, label="", place=place)
                bar.rows.append(("", _Line(task, now)))
            name, line = bar.rows[number]
            if name != part.name:
                line = _Line(line.task, now, part.done)
                bar.rows[number] = (part.name, line)
            line.done, line.total = part.done, part.size
            label = f"  {shortened(visible(part.name))}"
            progress.update(line.task, visible=True, label=label)
            self._show(progress, line, now)
        for _, line in bar.rows[len(parts) :]:
            progress.update(line.task, visible=False)

    def remove(self, task: TaskID) -> None:
        """The bar is no longer shown."""
        bar = self._bars.pop(task, None)
        if bar is not None and self._progress is not None:
            for line in (bar.line, *(line for _, line in bar.rows)):
                self._progress.remove_task(line.task)
            if not self._bars:
                self.close()


class _Line:
    """What is written in one line: how much of what, how fast, how long still."""

    def __init__(self, task: TaskID, now: float, done: int = 0) -> None:
        self.task = task
        self.done = done
        self.total: int | None = None
        self.detail = ""
        self._begun = now
        self._meter = Meter(now, done)

    def describe(self, now: float) -> dict[str, Any]:
        """What is written behind the bar."""
        amount = self.detail
        if self.total:
            amount = f"{amounts.size(self.done)} of {amounts.size(self.total)}"
        elif self.done:
            amount = amounts.size(self.done)
        rate = self._meter.rate(now, self.done)
        if now - self._begun < SETTLED or not self.total:
            return {"amount": amount, "rate": "", "left": ""}
        if not rate:
            return {"amount": amount, "rate": "stalled", "left": ""}
        left = amounts.duration((self.total - self.done) / rate)
        return {"amount": amount, "rate": amounts.rate(rate), "left": f"{left} left"}


class TerminalBar(Bar):
    """A line, and one below it for each file on its way."""

    def __init__(self, display: TerminalDisplay, task: TaskID, now: float) -> None:
        self._display = display
        self.line = _Line(task, now)
        self.parts: Parts | None = None
        self.rows: list[tuple[str, _Line]] = []
        """Names of the files on their way, and a line for each."""

    def update(
        self,
        done: int,
        total: int | None = None,
        *,
        detail: str = "",
        parts: Parts | None = None,
        **facts: object,
    ) -> None:
        self.line.done = done
        self.line.total = total
        self.line.detail = detail
        self.parts = parts

    def close(self) -> None:
        self._display.remove(self.line.task)


def shortened(name: str) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= LABEL - 2 else f"…{name[-(LABEL - 3) :]}"


class _Margin:
    """Leaves room at the right for the `^C` of a terminal, which would begin another line."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(
            self._renderable, options.update(width=max(1, options.max_width - 4))
        )


class _Bars(Progress):
    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        # The lines of a bar stay with it, whatever comes later.
        return super().make_tasks_table(sorted(tasks, key=lambda task: task.fields["place"]))

    def get_renderable(self) -> RenderableType:
        return _Margin(super().get_renderable())


class _Field(ProgressColumn):
    """A text that is set with the task. As `Text`, so that nothing in it is read as markup."""

    def __init__(self, name: str, **column: Any) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis", **column))
        self._name = name

    def render(self, task: Task) -> Text:
        return Text(task.fields.get(self._name, ""))
