"""The progress of a run on the screen: a bar or plain lines, and a summary at the end."""

import collections
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rich import console as rich_console
from rich import progress as rich_progress
from rich import table as rich_table

from tasks.answer import Metric

Answer = TypeVar('Answer')

# The time left is estimated from the rate of this many last seconds. The clock starts with the
# first finished step, so that compilation is never part of the rate.
RATE_WINDOW = 30.0
REFRESH_INTERVAL = 0.1  # seconds between two drawings of the bar
SHORTEST_BAR = 12  # characters

OUTPUTS = (
    ('result.json', 'the numbers above, the configuration and the versions used'),
    ('metrics.jsonl', "the task's metrics, one record a line"),
    ('curves.png', 'the metrics as a picture'),
    ('config.json', 'the configuration'),
    ('data.json', 'what the network has to know of its data set'),
    ('checkpoints', 'parameters and optimizer state, the latest and the best'),
    ('tensorboard', 'event files for TensorBoard'),
)


class Progress:
    """Shows the progress of training; used as a context manager.

    In a terminal it is a bar. Anywhere else (a file, CI, the log of a cluster) it is plain lines
    that are easy to grep, at most one in `interval` seconds besides the last step's:

    step 100/450  epoch 2.2/10  loss 0.123  accuracy 96.1 %  5,120 images/s  12 s left

    Args:
      total_steps: the step at which training ends.
      steps_per_epoch: adds the epoch.
      metrics: the metrics that are passed to `update`.
      enabled: False shows nothing (every process but the first).
      interval: seconds between two plain lines.
      console: where to write; standard output by default.
      clock: returns the seconds that rates are measured with; tests pass their own.
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: float | None = None,
        *,
        metrics: Sequence[Metric] = (),
        enabled: bool = True,
        interval: float = 10.0,
        console: rich_console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._enabled = enabled
        self._interval = interval
        self._clock = clock
        self._console = console or rich_console.Console()
        self._metrics = {metric.name: metric for metric in metrics}
        # The last known values, because not every update has them.
        self._means, self._rate = {}, None
        self._recent = collections.deque()  # (time, step) of the last RATE_WINDOW seconds
        self._last_output = -float('inf')
        self._bar = None
        if enabled and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = _Bar(self._console, total_steps)

    def __enter__(self) -> 'Progress':
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(
        self,
        step: int,
        means: Mapping[str, float] | None = None,
        images_per_second: float | None = None,
    ) -> None:
        """Shows that `step` is done.

        Args:
          step: number of updates done.
          means: {metric: value}; metrics that are left out keep their last values.
          images_per_second: None keeps the last value.
        """
        if not self._enabled:
            return
        now = self._clock()
        self._remember(now, step)
        self._means.update(means or {})
        self._rate = self._rate if images_per_second is None else images_per_second
        wait = self._interval if self._bar is None else REFRESH_INTERVAL
        if now - self._last_output < wait and step != self._total:
            return
        self._last_output = now
        texts = self._texts(step)
        if self._bar is None:
            self._print(f'step {step}/{self._total}  ' + '  '.join(texts.values()))
        else:
            self._bar.show(step, texts)

    def message(self, text: str) -> None:
        """Prints a line above the bar, such as an evaluation or a warning."""
        if not self._enabled:
            return
        if self._bar is None:
            self._print(text)
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def seconds_left(self, step: int) -> float | None:
        """Returns the seconds left at the recent rate, or None before a rate is known."""
        if not self._recent:
            return None
        (first_time, first_step), (last_time, last_step) = self._recent[0], self._recent[-1]
        if last_step <= first_step or last_time <= first_time:
            return None
        return (self._total - step) * (last_time - first_time) / (last_step - first_step)

    def _remember(self, now: float, step: int) -> None:
        # A step may take less than a millisecond: five points a second are enough.
        if self._recent and now - self._recent[-1][0] < 0.2:
            return
        self._recent.append((now, step))
        while len(self._recent) > 2 and now - self._recent[0][0] > RATE_WINDOW:
            self._recent.popleft()

    def _texts(self, step: int) -> dict[str, str]:
        """Returns the pieces of the line by name: 'epoch', each metric, 'rate' and 'left'."""
        texts = {}
        if self._steps_per_epoch:
            epochs = self._total / self._steps_per_epoch
            texts['epoch'] = f'epoch {step / self._steps_per_epoch:.1f}/{round(epochs, 1):g}'
        for name, value in self._means.items():
            metric = self._metrics[name]
            digits = 1 if metric.percent else 3 + (abs(value) < 0.1)
            texts[name] = f'{name} {metric.shown(value, digits)}'
        if self._rate is not None:
            texts['rate'] = f'{self._rate:,.0f} images/s'
        left = self.seconds_left(step)
        if left is not None and step < self._total:
            texts['left'] = f'{format_seconds(math.ceil(left))} left'
        return texts

    def _print(self, text: str) -> None:
        # Not console.print, which breaks lines at 80 columns.
        print(text, file=self._console.file, flush=True)


class _Bar:
    """A bar of rich that is redrawn only by `show`, without a thread of its own."""

    def __init__(self, console: rich_console.Console, total_steps: int):
        self._rich = rich_progress.Progress(
            rich_progress.BarColumn(bar_width=None, table_column=rich_table.Column(ratio=1)),
            rich_progress.TextColumn(
                '{task.description}', markup=False, table_column=rich_table.Column(no_wrap=True)
            ),
            console=console,
            auto_refresh=False,
            expand=True,
        )
        self._total = total_steps
        self._longest = 0
        self._task = self._rich.add_task('compiling ...', total=total_steps)

    def start(self) -> None:
        self._rich.start()
        self._rich.refresh()

    def stop(self) -> None:
        self._rich.stop()

    def show(self, step: int, texts: Mapping[str, str]) -> None:
        texts = {'step': f'{step:>{len(str(self._total))}}/{self._total}', **texts}
        metrics = [name for name in texts if name not in ('step', 'epoch', 'loss', 'rate', 'left')]
        for least_needed in ('epoch', 'rate', *metrics, 'left'):
            if len('  '.join(texts.values())) + SHORTEST_BAR <= self._rich.console.width:
                break
            texts.pop(least_needed, None)
        text = '  '.join(texts.values())
        # The text never becomes shorter, so that the bar does not change its length with a digit.
        room = self._rich.console.width - SHORTEST_BAR
        self._longest = min(max(self._longest, len(text)), room)
        self._rich.update(self._task, completed=step, description=text.ljust(self._longest))
        self._rich.refresh()


def format_seconds(seconds: float) -> str:
    """Returns a duration as text: '12 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f'{seconds} s'
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f'{minutes} min {seconds:02d} s'
    return f'{minutes // 60} h {minutes % 60:02d} min'


def pictures(
    answers: Iterable[Answer],
    total: int,
    console: rich_console.Console | None = None,
    of: Callable[[Answer], int] = lambda answer: 1,
) -> Iterator[Answer]:
    """Yields the answers, and shows how many pictures are done, in a terminal.

    Args:
      answers: one for each picture, or for several.
      total: the number of pictures.
      console: where to show it; standard error by default, so that the answers on standard output
        can go to a file or another program.
      of: returns for how many pictures an answer is.
    """
    console = console or rich_console.Console(stderr=True)
    with rich_progress.Progress(
        rich_progress.BarColumn(),
        rich_progress.TextColumn('{task.completed:,.0f} of {task.total:,.0f} pictures'),
        rich_progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Answers are printed above the bar where both are in the terminal, and only there.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task('', total=total)
        for answer in answers:
            yield answer
            bar.advance(task, of(answer))


def summary(
    *,
    workdir: str | os.PathLike,
    headline: tuple[str, str],
    wall_seconds: float,
    device: str = '',
    python: str | None = None,
) -> str:
    """Returns the text that ends a run: its result, its files and the next commands.

    Args:
      workdir: the run's folder; only existing files are listed.
      headline: the name of the test's metric, such as 'test accuracy', and its value.
      wall_seconds: duration of the whole run.
      device: description of the devices.
      python: the interpreter in the commands; by default the running one, relative to the current
        folder.
    """
    workdir = Path(workdir)
    where = shlex.quote(str(workdir))
    python = shlex.quote(python or python_as_typed())
    on_device = f' on {device}' if device else ''
    width = max(len(headline[0]), len('wall time'))
    lines = [
        '',
        f'{headline[0]:<{width}}  {headline[1]}',
        f'{"wall time":<{width}}  {format_seconds(wall_seconds)}{on_device}',
        '',
        f'Written to {workdir}:',
        *(f'  {name:<14} {what}' for name, what in OUTPUTS if (workdir / name).exists()),
        '',
        'Next:',
        f'  {python} evaluate.py --workdir={where}  (a detailed report)',
        f'  {python} predict.py --workdir={where} IMAGE.png ...',
        f'  tensorboard --logdir={where}  (after: pip install tensorboard)',
    ]
    return '\n'.join(lines)


def python_as_typed() -> str:
    """Returns the path of the running interpreter, relative if it is inside the current folder."""
    try:
        return str(Path(sys.executable).relative_to(Path.cwd()))
    except ValueError:
        return sys.executable or 'python'
