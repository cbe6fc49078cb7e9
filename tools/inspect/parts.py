"""The parts of tools.inspect: one row for each, and a module of the same name with `write(work)`.

`write` computes what its part shows and hands every picture to `work.save`; it returns nothing. It
raises a UserError where it has nothing to show for this network, and says why.
"""

import dataclasses
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which starts JAX
    from tools.inspect.work import Work

NOTHING = 'nothing'  # the checkpoint is enough
PICTURES = 'pictures'  # the IMAGEs of the command line
DATA = 'data'  # a split of the data set
EITHER = 'either'  # several IMAGEs if they are named, else a split of the data set


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the command.

    Attributes:
      name: what --only calls it; the module is tools/inspect/NAME.py.
      about: what it shows, for the help and the page.
      needs: NOTHING, PICTURES, DATA or EITHER.
      options: names of the options that it obeys, besides those for pictures and data.
    """

    name: str
    about: str
    needs: str
    options: tuple[str, ...] = ()

    def write(self, work: 'Work') -> None:
        """Computes and saves what the part shows.

        Raises:
          UserError: there is nothing to show, or the data set is needed and not there.
        """
        importlib.import_module(f'tools.inspect.{self.name}').write(work)


PARTS = (
    Part('filters', 'the kernels of each layer, and statistics of them', NOTHING, ('layer',)),
    Part('units', 'which units answer to pictures, and which to none', EITHER),
    Part('maps', 'the feature maps of each stage', PICTURES, ('stage',)),
    Part('why', 'what in a picture speaks for the answer', PICTURES, ('stage', 'class', 'method')),
    Part('mistakes', 'the wrong answers of which the network was surest', DATA),
    Part('likes', 'the pictures that excite a unit most', DATA, ('stage', 'unit')),
    Part('embedding', 'the features of a split as points in a plane', DATA, ('stage',)),
)  # fmt: skip
