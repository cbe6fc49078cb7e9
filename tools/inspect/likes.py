"""The part "likes": the pictures of a split that excite a unit most."""

from errors import UserError
from tools.inspect.output import named
from tools.inspect.work import Work


def write(work: Work) -> None:
    """Writes a sheet for each stage, of the units that --unit names or of those that vary most.

    Raises:
      UserError: both --stage and --unit are given, or units answer to all pictures alike.
    """
    given = work.arguments
    if given.stage and work.units:
        raise UserError('--unit names its stage: leave --stage out.')
    likes, chosen = work.surveyed.likes, work.units
    if not chosen:
        chosen = {stage: likes.varied(stage) for stage in likes.stages}
        chosen = {given.stage: chosen[given.stage]} if given.stage else chosen
    for stage, units in chosen.items():
        if not units:
            print(f'  {stage}: its units answer to all pictures alike')
            continue
        title = f'{work.title}, {given.split} split'
        numbers = [stage, *map(str, units)] if work.units else [stage]
        sheet = likes.sheet(work.opened, work.examples, stage, units, title)
        work.save(named('likes', given.split, *numbers), *sheet)
