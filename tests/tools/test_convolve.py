"""tools.convolve: numbers against loops and the networks' own layers, text, pictures, mistakes."""

import io
import re
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

import command
from data_sources import digits
from models.layers import LayerFactory
from tests.support import slow
from tools import convolve
from tools.convolve import animation, colors, filters, inputs, plan, scene, sliding, text

MAP = [[4, 3, 4], [2, 4, 3], [2, 3, 4]]


def run(*arguments):
    assert convolve.main(list(map(str, arguments))) == 0


def refused(capsys, *arguments) -> str:
    """Runs a command that must be refused in a sentence or two; returns it."""
    try:
        code = command.call(convolve.main, list(map(str, arguments)))
    except SystemExit as end:  # of argparse
        code = end.code
    assert code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'error: ' in last
    return last


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob('*') if path.is_file()}


def slowly(values, weights, stride, padding):
    """A convolution by loops, as one would explain it."""
    height, width = values.shape
    side = len(weights)
    result = []
    for top in range(-padding, height + padding - side + 1, stride):
        row = []
        for left in range(-padding, width + padding - side + 1, stride):
            total = 0.0
            for y in range(side):
                for x in range(side):
                    if 0 <= top + y < height and 0 <= left + x < width:
                        total += values[top + y, left + x] * weights[y][x]
            row.append(total)
        result.append(row)
    return np.array(result)


def a_filter(numbers, divisor=1):
    return filters.Filter('own', np.asarray(numbers, float), divisor)


# --- numbers -------------------------------------------------------------------------------------


@hypothesis.given(st.data())
def test_a_convolution_equals_loops(data):
    side = data.draw(st.sampled_from([1, 3, 5]))
    stride, padding = data.draw(st.integers(1, 4)), data.draw(st.integers(0, side - 1))
    height, width = (data.draw(st.integers(side, 9)) for _ in range(2))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    values, numbers = rng.integers(0, 256, (height, width)), rng.integers(-9, 10, (side, side))
    divisor = data.draw(st.sampled_from([1, 9]))
    found = sliding.convolution(values, a_filter(numbers, divisor), stride, padding)
    expected = slowly(values, numbers, stride, padding) / divisor
    np.testing.assert_array_equal(found.result, expected)
    for row, column in np.ndindex(found.result.shape):
        total = found.products(row, column).sum() / divisor
        assert total == found.result[row, column]
    for left, size, count in zip(found.left_over, values.shape, found.result.shape, strict=True):
        assert (count - 1) * stride + side + left == size + 2 * padding
        assert left < stride


@pytest.mark.parametrize(
    ('side', 'stride', 'padding'), [slow(3, 1, 0), (3, 2, 1), slow(5, 3, 4), slow(1, 2, 0)]
)
def test_a_convolution_equals_the_networks_own(side, stride, padding):
    rng = np.random.default_rng(side)
    values, weights = rng.normal(size=(13, 16)), rng.normal(size=(4, side, side))
    layer = LayerFactory(np.float32, np.float32).conv(4, side, stride, padding, use_bias=False)
    kernel = np.moveaxis(weights, 0, -1)[:, :, None].astype(np.float32)
    maps = layer.apply({'params': {'kernel': kernel}}, values[None, ..., None].astype(np.float32))
    for number, numbers in enumerate(weights):
        found = sliding.convolution(values, a_filter(numbers), stride, padding)
        np.testing.assert_allclose(found.result, maps[0, ..., number], atol=2e-5)


@pytest.mark.parametrize(
    ('kind', 'side', 'stride'), [('max', 2, 2), ('max', 3, 2), ('average', 3, 3)]
)
def test_pooling_equals_the_networks_own(kind, side, stride):
    values = np.random.default_rng(side).normal(size=(11, 14))
    layer = LayerFactory(np.float32, np.float32).pool(kind, side, stride)
    expected = layer.apply({}, values[None, ..., None].astype(np.float32))[0, ..., 0]
    found = sliding.pooling(values, kind, side, stride, 'the picture').result
    np.testing.assert_allclose(found, expected, atol=1e-6)


@hypothesis.given(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 5), st.integers(0, 5),
    st.sampled_from(['max', 'average']),
)  # fmt: skip
def test_pooling_equals_loops(side, stride, more_rows, more_columns, kind):
    values = np.random.default_rng(side).normal(size=(side + more_rows, side + more_columns))
    found = sliding.pooling(values, kind, side, stride, 'the picture').result
    pooled = {'max': max, 'average': lambda numbers: sum(numbers) / len(numbers)}[kind]
    expected = [
        [
            pooled([values[top + y, left + x] for y in range(side) for x in range(side)])
            for left in range(0, more_columns + 1, stride)
        ]
        for top in range(0, more_rows + 1, stride)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_filters_by_name_do_what_they_say():
    ramp = np.tile(np.arange(8.0), (8, 1))  # brighter to the right
    for name in filters.NAMED:
        chosen = filters.parse([name])[0]
        found = sliding.convolution(ramp, chosen, 1, 0).result
        expected = {'sobel': 8, 'sobel_y': 0, 'laplacian': 0}
        if name in expected:
            assert (found == expected[name]).all(), name
        elif name in ('blur', 'gaussian', 'sharpen', 'identity'):
            np.testing.assert_allclose(found, ramp[1:-1, 1:-1], err_msg=name)
    down = sliding.convolution(ramp.T, filters.named('sobel_y'), 1, 0).result
    assert (down == 8).all()
    # A corner tells that nothing is flipped: emboss is dark in the upper left.
    assert filters.named('emboss').numbers[0, 0] == -2


# --- text ----------------------------------------------------------------------------------------


def test_the_textbook_every_product_every_sum_and_the_map(tmp_path, capsys):
    run(f'--output={tmp_path}')
    printed = capsys.readouterr().out
    windows = printed.split('Window ')[1:]
    assert len(windows) == 9
    picture = np.array([[int(number) for number in row] for row in inputs.TEXTBOOK])
    for place, window in enumerate(windows):
        row, column = divmod(place, 3)
        assert window.startswith(f'{place + 1} of 9: row {row + 1}, column {column + 1} ')
        products = [tuple(map(int, pair)) for pair in re.findall(r'(\d) x (\d)', window)]
        patch = picture[row : row + 3, column : column + 3].ravel().tolist()
        assert products == list(zip(patch, [1, 0, 1, 0, 1, 0, 1, 0, 1], strict=True))
        *rows, total = map(int, re.findall(r'= (\d)$', window, re.MULTILINE))
        sums = [a * b for a, b in products]
        assert rows == [sum(sums[:3]), sum(sums[3:6]), sum(sums[6:])]
        assert total == sum(rows) == MAP[row][column]
    assert 'The feature map, 3x3\n  4  3  4\n  2  4  3\n  2  3  4\n' in printed
    assert '(5 + 2 x 0 - 3) / 1 + 1 = 3\n' in printed
    assert printed.splitlines()[-2].split()[0] == str(tmp_path / 'convolution.gif')
    assert names(tmp_path) == {'convolution.gif', 'filters.png'}


def test_a_large_picture_prints_a_few_windows_and_says_so(tmp_path, capsys):
    run('--image=digit:3', '--filter=sobel', f'--output={tmp_path}')
    printed = capsys.readouterr().out
    assert printed.count('\nWindow ') == 8
    assert '8 of the 676 windows' in printed
    assert '--all prints every number' in printed
    values = digits.load('test').images[3, ..., 0].astype(float)
    expected = slowly(values, filters.named('sobel').numbers, 1, 0)
    assert f'from {expected.min():.0f} to {expected.max():.0f}' in printed
    run('--image=digit:3', '--filter=sobel', f'--output={tmp_path}', '--all')
    printed = capsys.readouterr().out
    assert printed.count('\nWindow ') == 676
    table = printed.partition('The feature map, 26x26\n')[2].partition('\n\n')[0]
    np.testing.assert_array_equal(np.loadtxt(io.StringIO(table)), expected)


@hypothesis.given(st.integers(3, 30), st.integers(3, 30), st.integers(1, 9), st.integers(0, 2))
def test_what_is_left_over_is_said_with_strides_that_fit(height, width, stride, padding):
    values = np.zeros((height, width))
    found = sliding.convolution(values, filters.named('sobel'), stride, padding)
    said = text.of_sizes(found)
    assert ('Left over' in said) == any(found.left_over)
    if any(found.left_over):
        fitting = re.search(r'Stride ([\d or]+) leaves', said)[1].split(' or ')
        for other in map(int, fitting):
            assert sliding.convolution(values, found.filter, other, padding).left_over == (0, 0)


@pytest.mark.parametrize(
    ('value', 'written'),
    [
        (-0.0, '0'),
        (0.1 + 0.2 - 0.3, '0'),
        (3.0, '3'),
        (-1020.0, '-1020'),
        (2.5, '2.5'),
        (251.6667, '251.67'),
        (1 / 9, '0.111'),
    ],
)
def test_numbers_are_short(value, written):
    assert text.number(value) == written


# --- pictures ------------------------------------------------------------------------------------


def decoded(path_or_bytes) -> tuple[list[np.ndarray], list[int], dict]:
    """The frames of a GIF as RGB, how long each is seen, and its properties."""
    with Image.open(path_or_bytes) as picture:
        frames, times = [], []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(np.asarray(picture.convert('RGB'), int))
            times.append(picture.info['duration'])
        return frames, times, picture.info


def test_each_frame_fills_one_more_cell_of_the_map():
    picture = inputs.embedded('textbook')
    work = sliding.convolution(picture.values, filters.named('laplacian'), 1, 1, picture.title)
    steps, after = plan.plan(work.result), colors.diverging(work.result)
    scales = colors.gray(picture.white), after
    made = animation.gif(work, steps, 'A title', *scales)
    frames, times, info = decoded(io.BytesIO(made))
    assert len(frames) == work.result.size == 25
    assert info['loop'] == 0
    assert times == [step.milliseconds for step in steps.steps]
    drawn = scene.Scene(work, 'A title', *scales)
    shades = after.colors(work.result).astype(int)
    left, top = drawn.result_at
    for number, frame in enumerate(frames):
        exact = np.asarray(drawn.frame(steps.steps[number]), int)
        assert np.abs(frame - exact).mean() < 1, 'what is stored is what was drawn'
        for place, (row, column) in enumerate(np.ndindex(work.result.shape)):
            # Beside the number, inside of the frame around the cell.
            y, x = top + row * drawn.cell + 8, left + column * drawn.cell + 8
            patch = frame[y : y + 4, x : x + 4].reshape(-1, 3)
            filled = (np.abs(patch - shades[row, column]) <= 5).all()
            hatched = {tuple(color) for color in patch.tolist()} <= {
                colors.BACKGROUND,
                colors.HATCH,
            }
            assert (filled, hatched) == (place <= number, place > number)


@hypothesis.given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_a_plan_shows_every_number_once_and_stays_short(height, width, seed):
    result = np.random.default_rng(seed).normal(size=(height, width))
    made = plan.plan(result)
    done = [step.done for step in made.steps]
    assert done == sorted(done)
    assert done[-1] == result.size
    assert made.steps[-1].milliseconds == plan.LAST
    assert len(done) <= max(plan.MOST_SINGLE, plan.MOST_BLOCKS + plan.CLOSELY + 1)
    assert {step.row * width + step.column for step in made.steps} <= set(range(result.size))
    assert all(step.row * width + step.column < step.done for step in made.steps)
    assert set(made.closely) <= {(step.row, step.column) for step in made.steps}


def blue(path) -> int:
    """How many pixels are clearly blue: nothing but negative numbers are, and their scale."""
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
        pixels = np.asarray(picture.convert('RGB'), int)
    return int((pixels[..., 2] > pixels[..., 0] + 80).sum())


def test_negative_numbers_are_blue(tmp_path):
    run('--image=tower', '--filter=sobel', f'--output={tmp_path}/sobel')
    run('--image=tower', '--filter=blur', f'--output={tmp_path}/blur')
    assert blue(tmp_path / 'sobel' / 'filters.png') > 500
    assert blue(tmp_path / 'blur' / 'filters.png') == 0


def test_pooling_alone_and_after_a_convolution(tmp_path, capsys):
    run('--pool=max', f'--output={tmp_path}/alone')
    printed = capsys.readouterr().out
    assert names(tmp_path / 'alone') == {'pooling.gif', 'pooling.png'}
    assert '  1  1\n  0  1\n  maximum = 1\n' in printed
    assert 'Left over, as in the networks here: 1 row at the bottom and 1 column' in printed
    run('--filter=cross', '--padding=1', '--pool=average', '--pool_stride=1', '--window=3',
        f'--output={tmp_path}/after')  # fmt: skip
    printed = capsys.readouterr().out
    assert names(tmp_path / 'after') == {'convolution.gif', 'pooling.gif', 'filters.png'}
    picture = inputs.embedded('textbook').values
    before = slowly(picture, filters.named('cross').numbers, 1, 1)
    expected = slowly(before, np.full((3, 3), 1 / 9), 1, 0)
    table = printed.partition('Mean of each window, 3x3\n')[2].partition('\n\n')[0]
    np.testing.assert_allclose(np.loadtxt(io.StringIO(table)), expected, atol=0.006)


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_made_gray_and_reduced(tmp_path, capsys):
    large = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    path = tmp_path / 'a picture.png'
    Image.fromarray(large).convert('RGB').save(path)
    run(path, '--size=30', '--filter=identity', '--all', f'--output={tmp_path}/out')
    printed = capsys.readouterr().out
    assert 'Reduced from 40x60 to 20x30 pixels (--size=30).' in printed
    table = printed.partition('The feature map, 18x28\n')[2].partition('\n\n')[0]
    means = large.reshape(20, 2, 30, 2).mean((1, 3))[1:-1, 1:-1]
    np.testing.assert_allclose(np.loadtxt(io.StringIO(table)), means, atol=0.51)


def test_nothing_else_is_overwritten(tmp_path, capsys):
    run(f'--output={tmp_path}')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run(f'--output={tmp_path}')  # the same again is no loss
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert 'filters.png is there already' in refused(
        capsys, '--filter=cross', '--filter=blur', f'--output={tmp_path}'
    )
    (tmp_path / 'filters.png').write_bytes(b'mine')
    (tmp_path / 'convolution.gif').unlink()
    refused(capsys, f'--output={tmp_path}')
    assert names(tmp_path) == {'filters.png'}, 'nothing is written then'
    assert (tmp_path / 'filters.png').read_bytes() == b'mine'


def test_files_go_into_a_folder_named_after_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run()
    run('--image=digit:7', '--filter=sobel', '--filter=0', '--stride=2', '--pool=max')
    assert {path.name for path in (tmp_path / 'runs' / 'convolve').iterdir()} == {
        'textbook', 'digit_7_sobel_own_stride2_max2'
    }  # fmt: skip


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--filter=sobell'], 'Did you mean "sobel"?'),
        (['--filter='], 'there is no filter of that name'),
        (['--filter=1,2,3;4,5;6,7,8'], 'row 2 has 2 numbers'),
        (['--filter=1,2;3,4'], 'an odd number up to 15'),
        (['--filter=' + ';'.join([','.join(['1'] * 17)] * 17)], 'an odd number up to 15'),
        (['--filter=1,2,x;1,2,3;1,2,3'], '"x" is not a number'),
        (['--filter=1,nan,3;1,2,3;1,2,3'], '"nan" is not a number'),
        (['--filter=1,inf,3;1,2,3;1,2,3'], '"inf" is not a number'),
        (['--filter=1,1_0,3;1,2,3;1,2,3'], '"1_0" is not a number'),
        (['--filter=1,2000,3;1,2,3;1,2,3'], '"2000" is not a number from -1000 to 1000'),
        (['--filter=1,,3;1,2,3;1,2,3'], '"" is not a number'),
        (['--filter=' + ';'.join([','.join(['1'] * 7)] * 7)], 'slides a window of 7 over 5 pixels'),
        (['--filter=blur'] * 9, 'at most 8'),
        (['--stride=0'], 'not a whole number above 0'),
        (['--stride=-1'], 'not a whole number above 0'),
        (['--padding=-1'], 'not a whole number from 0'),
        (['--padding=3'], 'At most 2 makes sense'),
        (['--window=3'], 'give --pool=max or --pool=average'),
        (['--pool=min'], 'invalid choice'),
        (['--pool=max', '--stride=2'], '--pool_stride is the step of pooling'),
        (['--pool=max', '--padding=1'], 'belongs to the convolution'),
        (['--pool=max', '--window=6'], 'slides a window of 6 over 5 pixels'),
        (['--pool=max', '--window=16'], 'at most 15'),
        (['--size=3'], 'from 8 to 256'),
        (['--image=towel'], 'Did you mean "tower"?'),
        (['--image=digit:359'], 'numbers 0 to 358'),
        (['--image=digit:-1'], 'numbers 0 to 358'),
        (['--image=digit', 'a.png'], 'not both'),
        (['missing.png'], 'missing.png does not exist'),
        (['broken.png'], 'cannot be read'),
        (['.'], 'it is a directory'),
        (['--output=broken.png'], 'Cannot write'),
        (['--config.seed=1'], 'has no configuration'),
        (['--fliter=blur'], 'Did you mean "--filter"?'),
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_a_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = io.BytesIO()
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(good, 'PNG')
    Path('broken.png').write_bytes(good.getvalue()[:-30])
    assert said in refused(capsys, *arguments)
    assert names(tmp_path) == {'broken.png'}
