"""Which picture of a folder belongs to which masks, and what is in the way.

    images/a.png   labels/a.png               equal stems; `masks` serves as well as `labels`
    images/a.png   masks/a/1.png ...          of objects: a folder of masks, each of one object
    a/images/a.png a/masks/1.png ...          the same, a folder for each picture

There may be folders below: images/x/a.png belongs to labels/x/a.png. Suffixes need not be equal.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from errors import UserError
from preparation import folder_listing, folder_source, split_list
from preparation.folder_listing import Found

IMAGES = 'images'
MASKS = ('labels', 'masks')


@dataclasses.dataclass(frozen=True)
class Entry(folder_source.Entry):
    """A picture and its masks; or what is left out.

    Attributes:
      objects: whether each of its masks has a single object; otherwise there is one mask.
    """

    objects: bool = False


def find(root: Path, instances: bool) -> tuple[list[Entry], collections.Counter]:
    """Returns what is in a folder of one of the forms above, and what of it systems have left.

    Args:
      root: the folder.
      instances: whether masks are of objects; only then are there folders of masks.

    Returns:
      the entries, sorted by stem, and {kind: files} of what was ignored.

    Raises:
      UserError: the folder has none of the forms.
    """
    names = {name.lower(): name for name in folder_listing.folders(root)}
    if IMAGES in names:
        found = _side_by_side(root, names, instances)
    elif instances and any(_has_images(root / name) for name in names.values()):
        found = _a_folder_each(root, sorted(names.values()))
    else:
        below = ' or folders with images/ and masks/ for each picture' * instances
        raise UserError(
            f'{root} has no folder "{IMAGES}": --source needs {IMAGES}/ and {MASKS[0]}/ (or '
            f'{MASKS[1]}/), itself or below train, val and test{below}.'
        )
    entries, ignored = found
    return sorted(entries, key=lambda entry: (entry.stem, entry.path)), ignored


def _has_images(folder: Path) -> bool:
    return any(name.lower() == IMAGES for name in folder_listing.folders(folder))


def _side_by_side(
    root: Path, names: Mapping[str, str], instances: bool
) -> tuple[list[Entry], collections.Counter]:
    """Returns the entries of a folder with images/ and labels/ or masks/."""
    mask_folders = [names[name] for name in MASKS if name in names]
    if len(mask_folders) != 1:
        both = f'has both {" and ".join(mask_folders)}: move away the one that is not to be used'
        none = f'has no folder "{MASKS[0]}" or "{MASKS[1]}" beside "{names[IMAGES]}"'
        raise UserError(f'{root} {both if mask_folders else none}.')
    base = root / mask_folders[0]
    pictures, odd = _by_stem(root / names[IMAGES])
    masks, odd_masks = _by_stem(base)
    objects = collections.defaultdict(list)
    if instances:
        for stem in [stem for stem in masks if stem.rpartition('/')[0] in pictures]:
            objects[stem.rpartition('/')[0]] += masks.pop(stem)
    entries = [
        _paired(stem, files, masks.pop(stem, []), sorted(objects.pop(stem, [])), base)
        for stem, files in pictures.items()
    ]
    for stem, files in masks.items():
        hint = '; --instances takes folders of masks' * (stem.rpartition('/')[0] in pictures)
        entries += [Entry(stem, f, fault=f'a mask without a picture{hint}') for f in files]
    return _with_odd(entries, [*odd, *odd_masks])


def _a_folder_each(root: Path, names: Sequence[str]) -> tuple[list[Entry], collections.Counter]:
    """Returns the entries of a folder that has one for each picture, with images/ and masks/."""
    entries, odd = [], []
    for name in names:
        folders = {n.lower(): root / name / n for n in folder_listing.folders(root / name)}
        if IMAGES not in folders:
            entries.append(Entry(name, root / name, fault=f'a folder without {IMAGES}/'))
            continue
        pictures, more = _files(folders[IMAGES])
        odd += more
        if len(pictures) != 1:
            fault = f'{len(pictures)} pictures in {IMAGES}/, where there should be one'
            entries.append(Entry(name, root / name, fault=fault))
            continue
        base = next((folders[n] for n in reversed(MASKS) if n in folders), None)
        masks, more = _files(base) if base else ([], [])
        odd += more
        base = base or root / name / MASKS[-1]
        entries.append(_paired(name, pictures, [], sorted(masks), base))
    return _with_odd(entries, odd)


def _paired(
    stem: str, pictures: Sequence[Path], maps: Sequence[Path], objects: Sequence[Path], base: Path
) -> Entry:
    """Returns the entry of a stem, for which there should be one picture and one sort of masks."""
    first = pictures[0]
    if len(pictures) > 1:
        others = ', '.join(path.name for path in pictures[1:])
        return Entry(stem, first, fault=f'has the same stem as {others}: rename one with its mask')
    if not maps and not objects:
        where = f'{base.name}/{stem}.png' if base.parent.name != stem else f'{base.name}/'
        return Entry(stem, first, fault=f'has no mask ({where})')
    if len(maps) + bool(objects) > 1:
        names = [f'{base.name}/{path.name}' for path in maps]
        names += [f'the folder {base.name}/{stem}'] * bool(objects)
        return Entry(stem, first, fault=f'has several masks ({", ".join(names)})')
    return Entry(stem, first, tuple(maps or objects), objects=bool(objects))


def _files(folder: Path) -> tuple[list[Path], list[Found]]:
    """Returns the pictures below a folder, sorted, and the other files."""
    found = folder_listing.files_below(folder)
    return [f.path for f in found if not f.fault], [f for f in found if f.fault]


def _by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[Found]]:
    """Returns {stem: pictures} of those below a folder, and the other files."""
    paths, odd = _files(folder)
    stems = collections.defaultdict(list)
    for path in paths:
        stems[split_list.without_suffix(path.relative_to(folder).as_posix())].append(path)
    return dict(stems), odd


def _with_odd(
    entries: list[Entry], odd: Sequence[Found]
) -> tuple[list[Entry], collections.Counter]:
    """Returns the entries, with those of files that are no pictures, and counts of the ignored."""
    ignored = collections.Counter(found.kind for found in odd if found.ignored)
    for found in odd:
        if not found.ignored:
            entries.append(Entry('', found.path, fault=found.fault, defective=False))
    return entries, ignored
