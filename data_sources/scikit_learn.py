"""Files that scikit-learn ships, found without importing it, which takes seconds."""

import importlib.util
from pathlib import Path

from errors import UserError


def shipped(name: str, what: str) -> Path:
    """Returns the path of a file below scikit-learn's folder `datasets`.

    Args:
      name: such as 'images/china.jpg'.
      what: is read from it; the beginning of the message.

    Raises:
      UserError: it is not there.
    """
    package = importlib.util.find_spec('sklearn')
    folder = Path(package.submodule_search_locations[0]) if package else Path('sklearn')
    path = folder / 'datasets' / name
    if not path.is_file():
        raise UserError(
            f'{what} read from {path}, which does not exist: install the version of scikit-learn '
            'that requirements.txt names.'
        )
    return path
