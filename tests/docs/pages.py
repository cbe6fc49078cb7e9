"""What the pages of the documentation hold: blocks of code, the commands in them, links."""

import dataclasses
import re
import shlex

from tests.conftest import ROOT

PAGES = ('README.md', *(f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md'))))
PAGES += ('CONTRIBUTING.md', 'cluster/README.md')
LANGUAGES = ('bash', 'console', 'python', 'text')
_FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
      language: one of LANGUAGES.
      text: what is in it.
    """

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is, if its first line is a comment with a path."""
        found = re.match(r'# ([\w/]+\.py)\n', self.text)
        return found[1] if found and self.language == 'python' else None


@dataclasses.dataclass(frozen=True)
class Command:
    """A command as it stands in a page, on one line and without its comment.

    Attributes:
      text: the line.
      variables: assignments of the shell that stand before it in its block.
      expected: the lines below it in a block "console".
    """

    text: str
    variables: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The command as a shell splits it, variables filled in."""
        text = self.text
        for assignment in self.variables:
            name, _, value = assignment.partition('=')
            text = text.replace(f'${name}', value)
        return shlex.split(text)

    @property
    def python(self) -> tuple[str, list[str]] | None:
        """(module, arguments) of a command that starts a Python of this repository."""
        words = self.words
        if 'python' not in words:
            return None
        first, *rest = words[words.index('python') + 1 :]
        return (rest[0], rest[1:]) if first == '-m' else (first.removesuffix('.py'), rest)


def read(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub('', read(page))


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in _FENCE.findall(read(page))]


def commands(page: str) -> list[Command]:
    """Every command in the page's blocks, in order."""
    return [command for block in blocks(page) for command in commands_of(block)]


def commands_of(block: Block) -> list[Command]:
    """Every command in the block, in order."""
    if block.language == 'bash':
        return _of_bash(block.text)
    return _of_console(block.text) if block.language == 'console' else []


def _of_bash(text: str) -> list[Command]:
    found, variables = [], []
    for line in text.replace('\\\n', ' ').splitlines():
        line = _plain(line)
        if re.match(r'[A-Z_]+=\S+$', line):
            variables.append(line)
        elif line:
            found.append(Command(line, tuple(variables)))
    return found


def _of_console(text: str) -> list[Command]:
    return [
        Command(_plain(part.partition('\n')[0]), expected=tuple(part.splitlines()[1:]))
        for part in re.split(r'^\$ ', text, flags=re.MULTILINE)[1:]
    ]


def _plain(line: str) -> str:
    """The line without its comment, each gap one space."""
    return ' '.join(re.sub(r'(^|\s)# .*$', '', line).split())


def inline_commands(page: str) -> list[Command]:
    """Commands with arguments in running text and tables, such as `python train.py --list`."""
    found = re.findall(r'`(python (?:-m )?[\w./]+ [^`]*)`', prose(page))
    return [Command(' '.join(text.split())) for text in found]
