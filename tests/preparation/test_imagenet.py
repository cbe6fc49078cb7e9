"""ImageNet's tar files, made of real pictures: labels, order, resuming in the middle, damage."""

import contextlib
import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import UserError
from preparation import imagenet
from tests.conftest import SHARED_DATA
from tests.support_pictures import imagenet_files, imagenet_tars, tar_bytes, write_tar


@pytest.fixture(scope='module')
def tars(tmp_path_factory):
    return imagenet_tars(tmp_path_factory.mktemp('tars'))


def test_the_order_of_the_labels():
    wnids = imagenet.wnids()
    assert (len(wnids), list(wnids)) == (1000, sorted(set(wnids)))
    assert len(imagenet.validation_wnids()) == 50_000
    assert all(imagenet.validation_wnids().count(wnid) == 50 for wnid in wnids[::99])
    if (listed := SHARED_DATA / 'imagenet2012_wnids.txt').exists():
        assert wnids == tuple(listed.read_text().split())


def test_every_picture_comes_with_its_class(tars):
    source = imagenet.ImageNetTars(tars)
    assert source.classes_in_train == 200
    train = list(source.pictures('train', None))
    by_name = {path.name: path.read_bytes() for path in imagenet_files()}
    assert {picture.name: picture.data for picture in train} == by_name
    assert all(source.class_names[picture.label] == picture.name[:9] for picture in train)
    assert train[3].file == f'ILSVRC2012_img_train.tar/{train[3].name[:9]}.tar/{train[3].name}'
    validation = list(source.pictures('validation', None))
    assert len(validation) == 50
    contents = {data: name for name, data in by_name.items()}
    for picture in validation:
        assert source.class_names[picture.label] == contents[picture.data][:9]


def test_numbers_of_the_validation_pictures_are_counted_from_one(tmp_path):
    path = imagenet_files()[0]
    members = [(f'ILSVRC2012_val_{n:08d}.JPEG', path.read_bytes()) for n in (50_000, 1, 2, 777)]
    write_tar(tmp_path / 'ILSVRC2012_img_val.tar', members)
    source = imagenet.ImageNetTars(tmp_path)
    found = [source.class_names[p.label] for p in source.pictures('validation', None)]
    assert found == [imagenet.validation_wnids()[n - 1] for n in (50_000, 1, 2, 777)]
    # The first two lines of the list of labels that Caffe publishes (val.txt).
    assert [p.label for p in source.pictures('validation', None)][1:3] == [65, 970]


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_pictures_go_on_after_any_cursor(tmp_path, split):
    files = imagenet_files()
    more = {path.name[:9]: [('second.JPEG', b'2'), ('third.JPEG', b'3')] for path in files[:3]}
    source = imagenet.ImageNetTars(imagenet_tars(tmp_path, files[:9], validation=5, more=more))
    pictures = list(source.pictures(split, None))
    assert len(pictures) == {'train': 15, 'validation': 5}[split]
    for number, picture in enumerate(pictures):
        assert list(source.pictures(split, picture.cursor)) == pictures[number + 1 :]


def test_memory_does_not_grow_with_the_number_of_members(tmp_path):
    members = ((f'ILSVRC2012_val_{n:08d}.JPEG', b'') for n in range(1, 5001))
    write_tar(tmp_path / 'ILSVRC2012_img_val.tar', members)
    pictures = imagenet.ImageNetTars(tmp_path).pictures('validation', None)
    next(pictures)
    tracemalloc.start()
    try:
        assert sum(1 for _ in pictures) == 4999
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_one_tar_file_is_enough(tars, tmp_path):
    for split, name in imagenet.TARS.items():
        folder = tmp_path / split
        folder.mkdir()
        (folder / name).symlink_to(tars / name)
        assert list(imagenet.ImageNetTars(folder).splits) == [split]


def spoil_last_block(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 512 * 512])


def zip_it(path):
    path.write_bytes(b'PK\x03\x04' + bytes(10_000))


@pytest.mark.parametrize('name', imagenet.TARS.values())
@pytest.mark.parametrize('damage', [spoil_last_block, zip_it, lambda p: p.write_bytes(b'')])
def test_a_damaged_tar_file_is_found_before_anything_is_written(tmp_path, name, damage):
    imagenet_tars(tmp_path, imagenet_files()[:5], validation=3)
    damage(tmp_path / name)
    with pytest.raises(UserError, match=rf'{name} (cannot be read as|does not end like) a tar fil'):
        imagenet.ImageNetTars(tmp_path)


@pytest.mark.parametrize('split', imagenet.TARS)
def test_a_file_that_was_made_at_full_size_but_never_filled(tmp_path, split):
    path = imagenet_tars(tmp_path, imagenet_files()[:5], validation=5) / imagenet.TARS[split]
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2].offset
    with path.open('r+b') as file:
        file.seek(third)
        file.write(bytes(path.stat().st_size - third))
    with pytest.raises(UserError, match=f'{path.name} .*nothing but zeros from byte {third} on'):
        list(imagenet.ImageNetTars(tmp_path).pictures(split, None))


def test_a_cut_inner_tar_file_is_an_error(tmp_path):
    wnid = imagenet_files()[0].name[:9]
    inner = tar_bytes([('a.JPEG', bytes(5000)), ('b.JPEG', bytes(5000))])
    write_tar(tmp_path / 'ILSVRC2012_img_train.tar', [(f'{wnid}.tar', inner[:7000])])
    with pytest.raises(UserError, match=r'ILSVRC2012_img_train\.tar cannot be read as a tar file'):
        list(imagenet.ImageNetTars(tmp_path).pictures('train', None))


@pytest.mark.parametrize(
    ('name', 'members', 'message'),
    [
        (
            'train',
            [('n00000001.tar', b'')],
            'has a member "n00000001.tar", which is not the tar file of an ImageNet class, such as '
            'n01440764.tar. Download the official file again.',
        ),
        ('train', [('readme.txt', b'')], 'has a member "readme.txt"'),
        ('train', [('n01440764.tar', tar_bytes([]))] * 2, 'has a class twice'),
        ('train', [], 'is empty, but should contain files such as n01440764.tar: download the'),
        ('val', [('ILSVRC2012_val_00050001.JPEG', b'x')], 'has a member "ILSVRC2012_val_0005000'),
        ('val', [('ILSVRC2012_val_00000000.JPEG', b'x')], 'has a member "ILSVRC2012_val_0000000'),
        ('val', [('ILSVRC2012_val_00000007.JPEG', b'x')] * 2, 'has "ILSVRC2012_val_00000007.JPEG"'),
        ('val', [('n01440764_1.JPEG', b'x')], 'has a member "n01440764_1.JPEG" instead of names'),
    ],
)
def test_other_contents_are_refused(tmp_path, name, members, message):
    write_tar(tmp_path / f'ILSVRC2012_img_{name}.tar', members)
    with pytest.raises(UserError) as caught:
        list(imagenet.ImageNetTars(tmp_path).pictures('validation', None))
    assert f'ILSVRC2012_img_{name}.tar {message}' in str(caught.value)


def test_no_tar_file(tmp_path):
    with pytest.raises(UserError, match=r'neither ILSVRC2012_img_train\.tar nor ILSVRC2012_img_v'):
        imagenet.ImageNetTars(tmp_path)


def special(name, kind, linkname=''):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, linkname
    return member


def tar_of(members):
    """The bytes of a tar file of TarInfos, with empty contents, and (name, contents)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as tar:
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
            else:
                tar.addfile(member)
    return file.getvalue()


def test_folders_in_a_tar_file_are_passed_over(tmp_path):
    data = imagenet_picture()
    members = [special('./', tarfile.DIRTYPE), special('val', tarfile.DIRTYPE)]
    members += [('./val/ILSVRC2012_val_00000002.JPEG', data)]
    (tmp_path / 'ILSVRC2012_img_val.tar').write_bytes(tar_of(members))
    pictures = list(imagenet.ImageNetTars(tmp_path).pictures('validation', None))
    assert [(p.name, p.data) for p in pictures] == [('ILSVRC2012_val_00000002.JPEG', data)]


def imagenet_picture():
    return bytes(range(256)) * 5


OF_NO_ARCHIVE = {  # given the name that the member should have
    'a link to a file': (lambda n: special(n, tarfile.SYMTYPE, '/etc/passwd'), 'a link'),
    'a hard link': (lambda n: special(n, tarfile.LNKTYPE, 'other'), 'a link'),
    'a device': (lambda n: special(n, tarfile.CHRTYPE), 'a device'),
    'a disk': (lambda n: special(n, tarfile.BLKTYPE), 'a device'),
    'a pipe': (lambda n: special(n, tarfile.FIFOTYPE), 'a pipe'),
    'an absolute name': (lambda n: (f'/tmp/{n}', b'x'), 'a name that leads out of its folder'),
    'a name above': (lambda n: (f'a/../../{n}', b'x'), 'a name that leads out of its folder'),
    'a folder above': (lambda n: special('../a', tarfile.DIRTYPE), 'a name that leads out'),
}
VALIDATION = 'ILSVRC2012_val_00000001.JPEG'


@pytest.mark.parametrize('case', OF_NO_ARCHIVE)
@pytest.mark.parametrize('place', ['validation', 'train', 'class'])
def test_links_and_names_that_lead_elsewhere_are_refused(tmp_path, case, place):
    make, message = OF_NO_ARCHIVE[case]
    if place == 'validation':
        data = tar_of([('ILSVRC2012_val_00000002.JPEG', b'x'), make(VALIDATION)])
    elif place == 'train':
        data = tar_of([make('n01440764.tar')])
    else:
        inner = tar_of([('n01440764_1.JPEG', b'x'), make('n01440764_2.JPEG')])
        data = tar_of([('n01440764.tar', inner)])
    name = 'val' if place == 'validation' else 'train'
    (tmp_path / f'ILSVRC2012_img_{name}.tar').write_bytes(data)
    split = 'validation' if place == 'validation' else 'train'
    with pytest.raises(UserError, match=f'which is {message}'):
        list(imagenet.ImageNetTars(tmp_path).pictures(split, None))


@pytest.mark.parametrize('name', ['n02110806_7.JPEG', 'n02110806/a.JPEG', './n02110806.JPEG'])
def test_a_picture_of_another_class_is_refused(tmp_path, name):
    inner = tar_of([('n01440764_1.JPEG', b'x'), (name, b'y')])
    write_tar(tmp_path / 'ILSVRC2012_img_train.tar', [('n01440764.tar', inner)])
    pictures = imagenet.ImageNetTars(tmp_path).pictures('train', None)
    assert next(pictures).data == b'x'
    with pytest.raises(UserError, match='is a picture of n02110806 in the tar file of n01440764'):
        next(pictures)


def long_name():
    """A member whose name has 200 MB; as compressed it takes next to nothing."""
    name = tarfile.TarInfo('././@LongLink')
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 200_000_000
    return name.tobuf(tarfile.GNU_FORMAT) + bytes(name.size) + bytes(1024)


def sparse():
    """A file of 30 GB in a kilobyte, as GNU tar writes it."""
    headers = {'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': VALIDATION}
    member = tarfile.TarInfo('x')
    member.pax_headers = {**headers, 'GNU.sparse.realsize': str(30 << 30)}
    member.size = 512
    data = member.tobuf(tarfile.PAX_FORMAT) + b'0\n'.ljust(512, b'\0')
    return data + bytes(1024)


def headers_of_headers():
    """Headers that announce headers, two thousand times."""
    name = tarfile.TarInfo('././@LongLink')
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1
    return (name.tobuf(tarfile.GNU_FORMAT) + b'a'.ljust(512, b'\0')) * 2000 + bytes(1024)


def negative():
    """A member of a negative size: the next one would be the one before."""
    member = tarfile.TarInfo(VALIDATION)
    member.size = -1024
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@pytest.mark.parametrize('make', [long_name, sparse, headers_of_headers, negative])
def test_a_tar_file_that_asks_for_memory_or_time_is_refused(tmp_path, make):
    path = tmp_path / 'ILSVRC2012_img_val.tar'
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f'{path} (cannot be read as a tar|has a member)'):
            list(imagenet.ImageNetTars(tmp_path).pictures('validation', None))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), split=st.sampled_from(['train', 'validation']))
def test_whatever_happens_to_a_tar_file_is_a_sentence_or_pictures(tmp_path_factory, data, split):
    names = {'train': 'n01440764_{}.JPEG', 'validation': 'ILSVRC2012_val_0000000{}.JPEG'}
    whole = tar_of([(names[split].format(number), b'x' * 700) for number in (1, 2, 3)])
    if split == 'train':
        whole = tar_of([('n01440764.tar', whole)])
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers are where most can happen.
        place = data.draw(st.integers(0, 1600) | st.integers(0, len(content) - 9))
        content[place : place + 8] = data.draw(st.binary(min_size=8, max_size=8))
    folder = tmp_path_factory.mktemp('tar')
    (folder / imagenet.TARS[split]).write_bytes(content)
    with contextlib.suppress(UserError):
        for picture in imagenet.ImageNetTars(folder).pictures(split, None):
            assert len(picture.data) == picture.size
