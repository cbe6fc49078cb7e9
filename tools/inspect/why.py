"""The part "why": for each picture, what in it speaks for the answer, by several methods."""

from collections.abc import Sequence

import command
from errors import UserError
from inspection import drawing, methods, why
from inspection.methods import Explanation
from tasks.answer import Choice
from tools.inspect.output import named
from tools.inspect.work import Picture, Work


def write(work: Work) -> None:
    """Writes a picture for each picture.

    Raises:
      UserError: there is no such class or method, or none that suits the network.
    """
    wanted = vars(work.arguments)['class']
    names = command.chosen(work.arguments.method, [*methods.METHODS], 'method', '--method')
    for row, picture in enumerate(work.pictures):
        prediction = work.opened.look(picture.pixels[None]).prediction(0)
        try:
            choices = methods.choices(work.opened, prediction, wanted)
        except UserError as error:
            if wanted or len(work.pictures) == 1:
                raise
            print(f'  without {picture.path}: {error}')
            continue
        explanations = _explained(work, picture, choices, names, say=row == 0)
        captions = ' and '.join(choice.caption for choice in choices)
        note = f'{work.title}. {why.legend([*explanations])}'
        title = f'{picture.path.name}: why {captions}?'
        made = why.drawn(work.opened, picture.pixels, choices, explanations, title, note)
        which = [choice.name for choice in choices] if wanted else []
        titles = ', '.join(methods.METHODS[name].title for name in explanations)
        caption = f'what speaks for {captions} in {picture.path.name}, by {titles}'
        work.save(named('why', picture.name, *which), drawing.png(made), caption)


def _explained(
    work: Work, picture: Picture, choices: Sequence[Choice], names: Sequence[str], say: bool
) -> dict[str, list[Explanation]]:
    """Returns {method: the explanation of each choice}, without methods that do not suit.

    Args:
      say: whether to print why a method is left out.

    Raises:
      UserError: a method that was asked for by name does not suit, or none does.
    """
    found, stage = {}, work.arguments.stage
    for name in names:
        method = methods.METHODS[name]
        try:
            found[name] = [method.explain(work.opened, picture.pixels, c, stage) for c in choices]
        except UserError as error:
            if work.arguments.method or len(names) == 1:
                raise
            if say:
                print(f'  without {method.title}: {error}')
    return found
