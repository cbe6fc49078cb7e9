"""The part "units": which units answer to pictures, and which to none."""

from inspection import survey
from inspection.examples import Given
from inspection.units import Units, pooled
from tools.inspect.output import named
from tools.inspect.work import Work


def write(work: Work) -> None:
    """Writes a picture and a table, about the IMAGEs, or else about the split.

    About a single IMAGE there is nothing to be said: most units answer to some pictures only.
    """
    if len(work.pictures) > 1:
        units, what = Units(pooled(work.opened.trace)), 'images'
        survey.run(work.opened, Given(work.pixels), [units])
        of = 'the pictures of the command line'
    else:
        units, what = work.surveyed.units, work.arguments.split
        of = f'the {what} split'
    print(f'  {units.text()}')
    work.save(named('units', what), *units.drawn(f'{work.title}, {of}'))
    work.save(named('units', what, suffix='.txt'), units.table(), f'Each unit, for {of}.')
