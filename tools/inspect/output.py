"""The folder that tools.inspect writes into: its files, inspect.json, which lists them, and a page.

A folder is written into only if it is new, empty, or has an inspect.json. In such a folder a file
is replaced only if inspect.json lists it: whatever else is there belongs to somebody else.
"""

import contextlib
import hashlib
import html
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import files
from errors import UserError
from tools.inspect.parts import PARTS

INDEX, PAGE = 'inspect.json', 'index.html'
FORMAT = {'command': str, 'files': [{'name': str, 'part': str, 'caption': str, 'of': str}]}
COMMAND = 'tools.inspect'
LONGEST = 60  # characters of a part of a name
LONGEST_NAME = 200  # bytes of a name without its suffix; file systems take 255 with everything
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1c2733; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.25rem; margin-top: 2.5rem }
figure { margin: 1.5rem 0 } figcaption { margin-bottom: .4rem }
img { max-width: 100%; height: auto; border: 1px solid #d5dbe1 }
.note { color: #55616e }
"""


class CannotWriteError(UserError):
    """A file cannot be written: the folder is not ours, not writable or full."""


class Output:
    """The files of the command.

    Args:
      folder: where they go; made if it is missing.
      title: of the page.
      origin: what is written beside each file, such as the checkpoint's step.

    Raises:
      CannotWriteError: the folder has files of somebody else's, or cannot be written.
    """

    def __init__(self, folder: Path, title: str, origin: str):
        self.folder, self.title, self.origin = folder, title, origin
        self.count = 0
        self._part = ''
        self._listed: dict[str, dict[str, str]] = {}
        self._read()
        with self._explaining(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._write_index()

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Everything saved inside belongs to a part."""
        self._part = part
        try:
            yield
        finally:
            self._part = ''

    def save(self, name: str, content: bytes | str, caption: str) -> Path:
        """Writes a file, replacing the one of the same name that an earlier call has written.

        Args:
          name: with a suffix; see `named`.
          content: a picture as PNG or GIF, or a text.
          caption: a sentence about what it shows, which is printed and stands on the page.

        Returns:
          Its path.

        Raises:
          CannotWriteError: a file of that name is not ours, or it cannot be written.
        """
        path = self._write(name, content, {'part': self._part, 'caption': caption})
        self.count += 1
        print(f'  {path}: {caption}', flush=True)
        return path

    def page(self) -> Path:
        """Writes the page that shows all files; returns its path.

        Raises:
          CannotWriteError: it is not ours, or cannot be written.
        """
        self._read()
        return self._write(PAGE, self._html(), {'part': '', 'caption': self.title})

    def _write(self, name: str, content: bytes | str, entry: dict[str, str]) -> Path:
        path = self.folder / name
        self._read()  # another call may write into the folder meanwhile
        if name not in self._listed and (path.exists() or path.is_symlink()):
            raise CannotWriteError(
                f'{path} was not written by {COMMAND}: move it away, or choose another --output.'
            )
        # Listed first: a file whose writing was interrupted is still known as ours.
        self._listed.pop(name, None)
        self._listed[name] = {'name': name, 'of': self.origin, **entry}
        with self._explaining(path):
            self._write_index()
            files.replace(path, content.encode() if isinstance(content, str) else content)
        return path

    def _read(self) -> None:
        """Reads what inspect.json lists and is there.

        Raises:
          CannotWriteError: the folder is somebody else's.
        """
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise CannotWriteError(f'{self.folder} is no folder: choose another --output.')
        content = files.usable_json(self.folder / INDEX, FORMAT)
        if content and content['command'] == COMMAND:
            entries = [entry for entry in content['files'] if _is_sound(entry)]
            there = [entry for entry in entries if files.is_file(self.folder / entry['name'])]
            self._listed = {entry['name']: entry for entry in there}
        elif any(self.folder.iterdir()):
            raise CannotWriteError(
                f'{self.folder} has files that {COMMAND} did not write: choose a new or an empty '
                'folder by --output=DIR.'
            )

    def _write_index(self) -> None:
        content = {'command': COMMAND, 'files': [*self._listed.values()]}
        files.write_json(self.folder / INDEX, content)

    def _html(self) -> str:
        """Returns the page: a section for each part, in the order of PARTS."""
        abouts = {part.name: part.about for part in PARTS}
        names = dict.fromkeys([*abouts, *(entry['part'] for entry in self._listed.values())])
        shown = {name: self._figures(name) for name in names if name}  # the page's own has no part
        shown = {html.escape(name): figures for name, figures in shown.items() if figures}
        links = ' · '.join(f'<a href="#{name}">{name}</a>' for name in shown)
        sections = [
            f'<h2 id="{name}">{name.capitalize()}: {abouts.get(name, "")}</h2>\n{figures}'
            for name, figures in shown.items()
        ]
        title = html.escape(self.title)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n'
            f'<nav>{links}</nav>\n' + '\n'.join(sections) + '</html>\n'
        )

    def _figures(self, part: str) -> str:
        """Returns the files of a part for the page."""
        entries = [entry for entry in self._listed.values() if entry['part'] == part]
        return ''.join(map(self._figure, entries))

    def _figure(self, entry: dict[str, str]) -> str:
        """Returns a file for the page; with where it comes from, if that is not the page's."""
        name, link = html.escape(entry['name']), quote(entry['name'])
        caption = html.escape(entry['caption'])
        if entry['of'] != self.origin:
            caption += f' <span class="note">({html.escape(entry["of"])})</span>'
        if Path(entry['name']).suffix not in ('.png', '.gif'):
            return f'<p><a href="{link}">{name}</a>: {caption}</p>\n'
        return (
            f'<figure><figcaption>{caption}</figcaption><a href="{link}">'
            f'<img src="{link}" alt="{name}" loading="lazy"></a></figure>\n'
        )

    @contextlib.contextmanager
    def _explaining(self, path: Path) -> Iterator[None]:
        """Turns an error of writing into a sentence about --output."""
        try:
            yield
        except (OSError, UserError) as error:
            cause = error.__cause__ if isinstance(error, UserError) else error
            reason = getattr(cause, 'strerror', None) or cause
            raise CannotWriteError(
                f'Cannot write {path}: {reason}. Choose another folder by --output=DIR.'
            ) from error


def _is_sound(entry: dict[str, str]) -> bool:
    """Whether what inspect.json says of a file can stand on a page; a stranger may have written it.

    Half a surrogate pair, which JSON may hold, cannot; and a name must not lead out of the folder.
    """
    texts = [text for text in entry.values() if isinstance(text, str)]
    whole = all(text == text.encode(errors='ignore').decode() for text in texts)
    return whole and Path(entry['name']).name == entry['name']


def named(*parts: str, suffix: str = '.png') -> str:
    """Returns a file name of several parts, such as a part's name, a stage and a picture.

    Whatever is no letter, digit, dot or dash becomes an underscore, and long parts are cut. Of many
    parts the last ones are replaced by a hash of all, so that other parts have another name.
    """
    words = [''.join(c if c.isalnum() or c in '.-' else '_' for c in part) for part in parts]
    name = '-'.join(word[:LONGEST] for word in words)
    if len(name.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = name.encode()[: LONGEST_NAME - 9].decode(errors='ignore') + f'-{digest}'
    return name + suffix
