"""The part "mistakes": the wrong answers of which the network was surest."""

import json

from tools.inspect.output import named
from tools.inspect.work import Work


def write(work: Work) -> None:
    """Writes a sheet and two tables; only the tables where no answer was wrong."""
    mistakes, split = work.surveyed.mistakes, work.arguments.split
    print(f'  {mistakes.text()}')
    if mistakes.count:
        sheet = mistakes.sheet(work.examples, f'{work.title}, {split} split')
        work.save(named('mistakes', split), sheet, f'The worst mistakes on the {split} split.')
    for suffix, content, how in (
        ('.txt', mistakes.table(), 'as a table'),
        ('.json', json.dumps(mistakes.to_json(), indent=2) + '\n', 'with the next answers'),
    ):
        name = named('mistakes', split, suffix=suffix)
        work.save(name, content, f'The mistakes on the {split} split {how}.')
