"""Folders of pictures: which splits they give, what is left out, and every refusal."""

import io
import itertools
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from errors import UserError
from preparation.image_folder import Fractions, ImageFolder


def make(root, *paths, data=b'picture'):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def numbered(folder, count):
    return [f'{folder}/{number:03d}.jpg' for number in range(count)]


def files(source, split):
    return [picture.file for picture in source.pictures(split, None)]


def test_class_folders_are_split_per_class(tmp_path):
    make(tmp_path, *numbered('cat', 20), *numbered('dog', 31), *numbered('eel', 3))
    source = ImageFolder(tmp_path, 'pets')
    assert source.class_names == ('cat', 'dog', 'eel')
    assert list(source.splits) == ['train', 'validation', 'test']
    assert source.made == ('validation', 'test')
    found = {split: files(source, split) for split in source.splits}
    assert source.counts == {split: len(names) for split, names in found.items()}
    everything = sorted(itertools.chain(*found.values()))
    assert everything == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*.jpg'))
    for split, of_each in (('validation', [2, 3, 1]), ('test', [2, 3, 1]), ('train', [16, 25, 1])):
        classes = [name[:3] for name in found[split]]
        assert [classes.count(name) for name in source.class_names] == of_each
        assert found[split] == sorted(found[split])
        for picture in source.pictures(split, None):
            assert source.class_names[picture.label] == picture.file[:3]
            assert (picture.name, picture.data) == (picture.file, b'picture')


def test_the_split_depends_on_the_relative_paths_alone(tmp_path):
    names = [*numbered('cat', 30), *numbered('dog', 30)]
    one = ImageFolder(make(tmp_path / 'one', *names), 'pets')
    shuffled = make(tmp_path / 'elsewhere' / 'two', *reversed(names), data=b'other contents')
    for split in one.splits:
        assert files(one, split) == files(ImageFolder(shuffled, 'pets'), split)
    cats = {name[4:] for name in files(one, 'test') if name.startswith('cat')}
    dogs = {name[4:] for name in files(one, 'test') if name.startswith('dog')}
    assert cats != dogs


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=1, max_size=4),
    validation=st.floats(0, 0.45),
    test=st.floats(0, 0.45),
)
def test_every_class_is_in_every_split_and_every_picture_in_one(
    tmp_path_factory, counts, validation, test
):
    root = tmp_path_factory.mktemp('source')
    make(root, *(path for i, n in enumerate(counts) for path in numbered(f'class{i}', n)))
    source = ImageFolder(root, 'pets', Fractions(validation, test))
    labels = {s: [p.label for p in source.pictures(s, None)] for s in source.splits}
    for label, count in enumerate(counts):
        of_each = {split: found.count(label) for split, found in labels.items()}
        assert sum(of_each.values()) == count
        assert min(of_each.values()) >= 1
        for split, fraction in (('validation', validation), ('test', test)):
            wanted = max(1, round(count * fraction)) if fraction else 0
            assert of_each.get(split, 0) == wanted or of_each['train'] == 1
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ('folders', 'stored'),
    [
        (['train', 'val'], ['train', 'validation']),
        (['train', 'valid', 'test'], ['train', 'validation', 'test']),
        (['Training', 'Validation'], ['train', 'validation']),
        (['train', 'test'], ['train', 'test', 'validation']),
        (['train'], ['train', 'validation', 'test']),
    ],
)
def test_folders_for_the_splits(tmp_path, folders, stored):
    for folder in folders:
        make(tmp_path, *numbered(f'{folder}/cat', 12), *numbered(f'{folder}/dog', 12))
    source = ImageFolder(tmp_path, 'pets')
    assert source.class_names == ('cat', 'dog')
    assert list(source.splits) == stored
    for split in stored:
        for picture in source.pictures(split, None):
            assert picture.file.split('/', 1)[1] == picture.name
            assert source.class_names[picture.label] == picture.name[:3]
    given = [split for split in stored if split not in source.made]
    assert len(given) == len(folders)
    assert sum(source.counts.values()) == 24 * len(folders)


def test_a_class_may_be_called_train_or_test(tmp_path):
    make(tmp_path, *numbered('bus', 5), *numbered('train', 5))
    assert ImageFolder(tmp_path, 'vehicles').class_names == ('bus', 'train')
    make(tmp_path / 'b', *numbered('exam', 5), *numbered('test', 5))
    assert ImageFolder(tmp_path / 'b', 'words').class_names == ('exam', 'test')


def test_what_is_left_out(tmp_path):
    make(tmp_path, *numbered('cat', 5), 'cat/.hidden.jpg', 'cat/.git/1.jpg', '.cache/1.jpg')
    make(tmp_path, 'cat/notes.txt', 'cat/more/Thumbs.db', 'cat/more/deep.PNG', 'outside.jpg')
    source = ImageFolder(tmp_path, 'pets')
    assert source.class_names == ('cat',)
    assert source.loose == [str(tmp_path / 'outside.jpg')]
    pictures = [picture for split in source.splits for picture in source.pictures(split, None)]
    assert sum(source.counts.values()) == 6
    assert sorted(p.file for p in pictures if p.data) == [*numbered('cat', 5), 'cat/more/deep.PNG']
    left_out = [p for p in pictures if not p.data]
    assert sorted(p.file for p in left_out) == ['cat/more/Thumbs.db', 'cat/notes.txt']
    assert all(p.fault == 'not named like a picture' and not p.defective for p in left_out)


SYSTEMS = ['__MACOSX', '@eaDir', 'lost+found', '$RECYCLE.BIN', '.Trashes', '.ipynb_checkpoints']


@pytest.mark.parametrize('place', ['', 'train/', 'train/cat/', 'cat/more/'])
@pytest.mark.parametrize('name', SYSTEMS)
def test_folders_of_systems_are_no_classes_and_are_counted(tmp_path, place, name):
    plain(tmp_path / 'train' if place.startswith('train') else tmp_path)
    before = ImageFolder(tmp_path, 'pets')
    make(tmp_path, f'{place}{name}/a/._1.jpg', f'{place}{name}/1.jpg', f'{place}{name}/b/2.png')
    source = ImageFolder(tmp_path, 'pets')
    assert (source.class_names, source.counts) == (('cat', 'dog'), before.counts)
    assert source.identity() == before.identity()
    assert sum(source.system.values()) == 1
    assert not source.left_out + source.outside


def test_files_of_systems_are_counted_by_kind(tmp_path):
    plain(tmp_path)
    make(tmp_path, *(f'{folder}._{n}.jpg' for n in range(3) for folder in ('', 'cat/', 'dog/x/')))
    make(tmp_path, 'Thumbs.db', 'cat/Thumbs.db', 'cat/thumbs.db', 'dog/desktop.ini', 'dog/.hidden')
    source = ImageFolder(tmp_path, 'pets')
    assert sum(source.counts.values()) == 10
    assert source.system == {
        '._* (of macOS)': 9, 'Thumbs.db': 2, 'thumbs.db': 1, 'desktop.ini': 1, 'hidden': 1
    }  # fmt: skip


def picture(form):
    file = io.BytesIO()
    Image.new('RGB', (9, 9)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM'])
def test_a_file_without_a_suffix_is_taken_if_it_is_a_picture(tmp_path, form):
    plain(tmp_path)
    make(tmp_path, 'cat/8f3a', 'cat/IMG.0001', 'dog/photo.bak', data=picture(form))
    make(tmp_path, 'cat/README', 'cat/empty', 'dog/Makefile', data=b'')
    make(tmp_path, 'dog/BMW', 'dog/P6', 'dog/II', data=b'BM P6 II* MM no picture at all')
    os.mkfifo(tmp_path / 'cat' / 'pipe')
    source = ImageFolder(tmp_path, 'pets')
    pictures = [p for split in source.splits for p in source.pictures(split, None)]
    found = {p.file for p in pictures if p.data == picture(form)}
    assert found == {'cat/8f3a', 'cat/IMG.0001'}
    assert source.unnamed == 2
    assert source.left_out == {'without a suffix': 7, '.bak': 1}
    assert +source.misnamed == {'.bak': 1}
    faults = {p.file: p.fault for p in pictures if p.fault}
    assert faults.pop('dog/photo.bak') == 'a picture by its contents that is not named like one'
    assert set(faults.values()) == {'not named like a picture'}


def test_links(tmp_path):
    """Links to files and folders are followed; loops end; broken ones are defects."""
    elsewhere = make(tmp_path / 'elsewhere', *numbered('dogs', 4))
    source = make(tmp_path / 'source', *numbered('cat', 4))
    (source / 'dog').symlink_to(elsewhere / 'dogs')
    (source / 'cat' / 'loop').symlink_to(source / 'cat')
    (source / 'cat' / 'up').symlink_to(source)
    (source / 'cat' / 'link.jpg').symlink_to(elsewhere / 'dogs' / '000.jpg')
    (source / 'dog' / 'broken.jpg').symlink_to('nowhere.jpg')
    (source / 'dog' / 'itself.jpg').symlink_to('itself.jpg')
    os.mkfifo(source / 'dog' / 'pipe.jpg')
    folder = ImageFolder(source, 'pets')
    pictures = [picture for split in folder.splits for picture in folder.pictures(split, None)]
    cats = sorted(p.file for p in pictures if p.label == 0 and p.data)
    assert cats[:4] == numbered('cat', 4)
    assert 'cat/link.jpg' in cats
    assert len(cats) == len(set(cats))
    bad = {p.file: p.fault for p in pictures if p.fault}
    assert bad['dog/broken.jpg'] == 'cannot be read: No such file or directory'
    assert bad['dog/itself.jpg'].startswith('cannot be read: Too many levels of symbolic links')
    assert bad['dog/pipe.jpg'] == 'not a regular file of at most 256 MiB'
    assert all(p.defective for p in pictures if p.fault)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_pictures_go_on_after_any_cursor(tmp_path, split):
    make(tmp_path, *numbered('cat', 21), *numbered('dog', 15), 'cat/notes.txt')
    source = ImageFolder(tmp_path, 'pets')
    pictures = list(source.pictures(split, None))
    for number, picture in enumerate(pictures):
        assert list(source.pictures(split, picture.cursor)) == pictures[number + 1 :]


def test_identity_and_stamp(tmp_path):
    make(tmp_path, *numbered('cat', 9), *numbered('dog', 9))
    before = ImageFolder(tmp_path, 'pets')
    os.utime(tmp_path / 'cat' / '000.jpg', (1, 1))
    touched = ImageFolder(tmp_path, 'pets')
    assert touched.identity() == before.identity()
    assert touched.stamp() != before.stamp()
    make(tmp_path, 'cat/000.jpg', data=b'longer than it was')
    assert ImageFolder(tmp_path, 'pets').identity() != before.identity()
    other = ImageFolder(tmp_path, 'pets', Fractions(0.3, 0.1))
    assert other.identity() != ImageFolder(tmp_path, 'pets').identity()


def plain(root):
    make(root, *numbered('cat', 5), *numbered('dog', 5))


def with_splits(root):
    make(root, *(path for s in ('train', 'val') for c in 'ab' for path in numbered(f'{s}/{c}', 3)))


REFUSED = {
    'no folder': (shutil.rmtree, 'is not a folder: --source must be a folder with pictures'),
    'empty': (lambda root: None, 'has no class folders: put the pictures into folders named after'),
    'only pictures': (lambda root: make(root, '1.jpg'), 'has no class folders'),
    'one level too high': (
        lambda root: plain(root / 'pets'),
        r'a single class, "pets", because all pictures are below the 2 folders of .*/pets \(cat',
    ),
    'one level too high below train': (
        lambda root: (plain(root / 'train' / 'pets'), plain(root / 'val' / 'pets')),
        r'source is too high. Move the folders of the classes up into .*/train\.$',
    ),
    'too few': (
        lambda root: (plain(root), make(root, *numbered('eel', 2))),
        r'Class "eel" in .* has 2 pictures: at least 3 are needed to give each of train, validat',
    ),
    'a class of other kinds': (
        lambda root: (plain(root), make(root, 'eel/1.cr2', 'eel/2.CR2', 'eel/._1.cr2')),
        r'has 0 pictures: .* no pictures that are read here: 2 \.cr2, 1 \._\* \(of macOS\)\.$',
    ),
    'a class of text': (
        lambda root: (plain(root), make(root, 'eel/1.txt')),
        'Class "eel" in .* has 0 pictures',
    ),
    'an empty class in train': (
        lambda root: (with_splits(root), make(root, 'train/c/1.txt')),
        'train/c has no pictures',
    ),
    'an empty split': (
        lambda root: (with_splits(root), make(root, 'test/a/1.txt')),
        'test has no pictures: add some, or remove it',
    ),
    'class unknown in train': (
        lambda root: (with_splits(root), make(root, 'val/bb/1.jpg')),
        r'val has a class "bb" that .*train does not have. Did you mean "b"\?',
    ),
    'no train': (
        lambda root: make(root, 'val/a/1.jpg', 'test/a/1.jpg'),
        'has the folders test, val but no train: add a folder train',
    ),
    'two for one split': (
        lambda root: (with_splits(root), make(root, 'valid/a/1.jpg')),
        r'has two folders for validation \(val, valid\)',
    ),
    'others beside': (
        lambda root: (with_splits(root), make(root, 'labels/a.txt')),
        r'and other folders \(labels\): move the others elsewhere, or move all classes into train',
    ),
    'unusual name': (
        lambda root: (plain(root), make(root, *numbered(' cat', 4))),
        "unusual name \\(' cat'\\): rename it",
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refusals(tmp_path, case):
    prepare, message = REFUSED[case]
    root = tmp_path / 'source'
    root.mkdir()
    prepare(root)
    with pytest.raises(UserError, match=message):
        ImageFolder(root, 'pets')


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    plain(tmp_path)
    scandir = os.scandir

    def refusing(folder):
        if str(folder).endswith('dog'):
            raise PermissionError(13, 'Permission denied')
        return scandir(folder)

    monkeypatch.setattr(os, 'scandir', refusing)
    with pytest.raises(UserError, match=r'/dog cannot be read \(Permission denied\): check its'):
        ImageFolder(tmp_path, 'pets')


def test_fractions_that_cannot_be(tmp_path):
    with_splits(tmp_path / 'split')
    with pytest.raises(UserError, match='is taken out of train: leave out --val_fraction and --te'):
        ImageFolder(tmp_path / 'split', 'pets', Fractions())
    plain(tmp_path / 'plain')
    with pytest.raises(UserError, match='leave no pictures for training: their sum must be below'):
        ImageFolder(tmp_path / 'plain', 'pets', Fractions(0.5, 0.5))
    source = ImageFolder(tmp_path / 'plain', 'pets', Fractions(0.9, 0.09))
    assert source.counts == {'train': 2, 'validation': 6, 'test': 2}


def test_a_class_missing_in_validation_is_told(tmp_path):
    with_splits(tmp_path)
    shutil.rmtree(tmp_path / 'val' / 'b')
    assert ImageFolder(tmp_path, 'pets').absent == {'train': [], 'validation': ['b']}
