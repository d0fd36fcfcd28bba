"""What is being done, told while it is done: a bar or a spinner in a terminal, lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from opslib.telling.doors import say


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[float, str], None]]:
    """Yield a progress callback: a live bar in a terminal, one plain line a step elsewhere."""
    if not console.is_terminal:
        seen: list[str] = []

        def print_step(_share: float, what: str) -> None:
            step = what.partition(":")[0]
            if step not in seen:
                seen.append(step)
                say(console, step)

        yield print_step
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=what)


@contextmanager
def show_steps(notes: Console) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a step: a spinner on a terminal, plain lines elsewhere."""
    if not notes.is_terminal:
        yield lambda text: say(notes, text)
        return
    with notes.status("starting the kernel") as status:
        yield lambda text: status.update(Text(text))
