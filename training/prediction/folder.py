"""The folder that `predict.py --output=DIR` fills: a picture for each answer, and a table."""

import csv
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from errors import UserError
from tasks.products import Products

TABLE = 'objects.csv'


class OutputFolder:
    """A new folder with `<folder>/<stem>.png` for each picture, and a row for each object.

    Files are written as the answers come, so that a run that is stopped leaves those that it has.

    Args:
      folder: has to be empty, or not to exist.

    Raises:
      UserError: there is something in the folder, or it cannot be made.
    """

    def __init__(self, folder: Path):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f'--output={folder} is not an empty folder: choose another one.')
        self._folder, self._names = folder, set()
        self._columns: list[str] = []

    def write(self, path: Path, products: Products) -> int:
        """Writes what was found in a picture; returns the number of objects.

        Args:
          path: of the picture. Files get its stem; a second picture of that stem gets 'stem_2'.
          products: of the picture.

        Raises:
          UserError: a file cannot be written.
        """
        name = self._name(path.stem)
        try:
            for kind, pixels in products.pictures.items():
                (self._folder / kind).mkdir(parents=True, exist_ok=True)
                with (self._folder / kind / f'{name}.png').open('xb') as file:
                    Image.fromarray(np.ascontiguousarray(pixels)).save(file, 'PNG')
            self._append({'picture': str(path), 'file': name, **row} for row in products.rows)
        except OSError as error:
            raise UserError(
                f'Cannot write into --output={self._folder}: {error.strerror or error}.'
            ) from error
        return len(products.rows)

    def _name(self, stem: str) -> str:
        names = itertools.chain([stem], (f'{stem}_{number}' for number in itertools.count(2)))
        # Some file systems do not tell upper case from lower case.
        name = next(name for name in names if name.lower() not in self._names)
        self._names.add(name.lower())
        return name

    def _append(self, rows: Iterable[dict]) -> None:
        """Appends rows to the table, which begins with the names of its columns."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / TABLE).open('a', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            for row in rows:
                if not self._columns:
                    self._columns = list(row)
                    writer.writerow(self._columns)
                writer.writerow([row[column] for column in self._columns])
