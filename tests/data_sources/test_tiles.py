"""Tiles of whole pictures: what they cover, and that the merged values depend on nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_sources.tiles import Merger, TilePlan, blended, cut, window

SIDES = st.integers(1, 200)
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6)
TILES = st.sampled_from([32, 64, 96])


def pixels(size, number):
    """A picture uint8 [*size, 3] of noise."""
    return np.random.default_rng([number, *size]).integers(0, 256, (*size, 3), np.uint8)


def values_of(part):
    """What a network might say of a tile: float32 [h, w, 2], not the same at its edges."""
    part = part.astype(np.float32)
    rows = np.linspace(0, 1, len(part), dtype=np.float32)[:, None]
    return np.stack([part.sum(-1) / 7 + rows, part[..., 0] * rows / 3], axis=-1)


def tiles_of(plan):
    """Yields the index of each tile of a plan that is no padding."""
    for batch in plan:
        yield from batch['index'][batch['mask'] > 0].tolist()


def merged(sizes, plans, shuffle=None):
    """The values of all pictures, as processes with these plans find them; each comes once."""
    found = {}
    for plan in plans:
        merger, order = Merger(plan), list(tiles_of(plan))
        if shuffle is not None:
            np.random.default_rng(shuffle).shuffle(order)
        for index in order:
            tile = plan.tiles[index]
            value = values_of(window(pixels(sizes[tile.picture], tile.picture), tile))
            for picture, whole in merger.add(index, value):
                assert picture not in found
                found[picture] = whole
    assert sorted(found) == list(range(len(sizes)))
    return [found[picture] for picture in range(len(sizes))]


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 700), width=SIDES, tile=st.sampled_from([4, 32, 64, 256]))
@example(height=1, width=1, tile=32)
@example(height=4000, width=1, tile=32)
@example(height=65, width=64, tile=64)
def test_tiles_cover_every_pixel_and_overlap_by_a_quarter(height, width, tile):
    tiles = cut((height, width), tile, picture=3)
    covered = np.zeros((height, width), bool)
    for part in tiles:
        assert part.picture == 3
        assert part.height in (tile // 2, tile)
        assert part.width in (tile // 2, tile)
        assert part[3:] == tiles[0][3:]
        covered[part.top : part.top + part.height, part.left : part.left + part.width] = True
    assert covered.all()
    for size, length, starts in (
        (height, tiles[0].height, sorted({part.top for part in tiles})),
        (width, tiles[0].width, sorted({part.left for part in tiles})),
    ):
        # Only a picture of a single tile reaches beyond its edge, and no smaller tile would do.
        assert starts[-1] + length == size or starts == [0]
        assert length == tile // 2 or size > tile // 2
        overlaps = [a + length - b for a, b in itertools.pairwise(starts)]
        assert all(overlap >= tile // 4 for overlap in overlaps)
        # With one tile less, some neighbours would overlap by less than a quarter.
        if len(starts) > 1:
            assert (len(starts) - 1) * (length - tile // 4) + tile // 4 < size


@settings(max_examples=50, deadline=None)
@given(height=SIDES, width=SIDES, tile=TILES)
@example(height=1, width=1, tile=32)
@example(height=1, width=200, tile=32)
def test_a_tile_is_the_picture_and_mirrors_it_beyond_its_edge(height, width, tile):
    image = pixels((height, width), 0)
    for part in cut((height, width), tile):
        found = window(image, part)
        assert found.shape == (part.height, part.width, 3)

        def mirrored(place, size):
            place = place % (2 * size)
            return np.where(place < size, place, 2 * size - 1 - place)

        rows = mirrored(part.top + np.arange(part.height), height)
        columns = mirrored(part.left + np.arange(part.width), width)
        np.testing.assert_array_equal(found, image[rows][:, columns])


def slow_blend(tiles, values, size, ramp):
    """A weighted mean for each pixel; near an edge inside the picture the weight is i / ramp."""
    found = np.zeros((*size, *values[0].shape[2:]))
    for y in range(size[0]):
        for x in range(size[1]):
            total = 0
            for tile, value in zip(tiles, values, strict=True):
                i, j = y - tile.top, x - tile.left
                if 0 <= i < tile.height and 0 <= j < tile.width:
                    weight = 1.0
                    for place, start, length, whole in (
                        (i, tile.top, tile.height, size[0]),
                        (j, tile.left, tile.width, size[1]),
                    ):
                        before = place + 1 if start > 0 else ramp
                        after = length - place if start + length < whole else ramp
                        weight *= min(before, after, ramp) / ramp
                    found[y, x] += weight * value[i, j].astype(np.float64)
                    total += weight
            found[y, x] /= total
    return found


@pytest.mark.parametrize('size', [(40, 33), (70, 9), (1, 90), (16, 16), (32, 32), (33, 100)])
def test_tiles_are_blended_by_weights_that_fall_to_their_edges(size):
    tiles = cut(size, 32)
    values = [values_of(window(pixels(size, i), tile)) for i, tile in enumerate(tiles)]
    found = blended(tiles, values, size, 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_blend(tiles, values, size, 8), rtol=2e-6)


@settings(max_examples=50, deadline=None)
@given(height=SIDES, width=SIDES, tile=TILES, extra=st.sampled_from([(), (3,), (2, 2)]))
def test_a_map_of_positions_comes_back_and_padding_never(height, width, tile, extra):
    """Values that say where they are; those beyond the picture are not finite."""
    place = np.arange(height * width, dtype=np.float32).reshape(height, width)
    tiles, values = cut((height, width), tile), []
    for part in tiles:
        value = np.full((part.height, part.width), np.nan, np.float32)
        inside = place[part.top : part.top + part.height, part.left : part.left + part.width]
        value[: inside.shape[0], : inside.shape[1]] = inside
        values.append(np.broadcast_to(value.reshape(*value.shape, *[1] * len(extra)),
                                      (*value.shape, *extra)))  # fmt: skip
    found = blended(tiles, values, (height, width), tile // 4)
    assert found.shape == (height, width, *extra)
    expected = np.broadcast_to(place.reshape(height, width, *[1] * len(extra)), found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_thousand_sizes_have_at_most_four_shapes():
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(1, 700, (1000, 2)).tolist()]
    plan = TilePlan(sizes, tile=256, batch_size=8, devices=1)
    shapes = {plan.tiles[index][3:] for batch in plan for index in batch['index']}
    assert shapes == {(128, 128), (128, 256), (256, 128), (256, 256)}
    # With the number of rows of a call there are no more programs than that either.
    programs = {(len(batch['index']), plan.tiles[batch['index'][0]][3:]) for batch in plan}
    assert len(programs) <= 4


@settings(max_examples=60, deadline=None)
@given(
    sizes=SIZES,
    tile=TILES,
    batch_size=st.integers(1, 9),
    each=st.integers(1, 3),
    processes=st.integers(1, 4),
    shuffle=st.integers(0, 99),
)
@example(sizes=[(1, 1)], tile=32, batch_size=1, each=1, processes=4, shuffle=0)
@example(sizes=[(1, 200), (200, 1)], tile=32, batch_size=4, each=2, processes=2, shuffle=0)
def test_batches_devices_processes_and_order_change_no_bit(
    sizes, tile, batch_size, each, processes, shuffle
):
    devices = each * processes
    plans = [TilePlan(sizes, tile, batch_size, devices, i, processes) for i in range(processes)]
    # Every tile once, all those of a picture in one process, and all make the same calls.
    own = [list(tiles_of(plan)) for plan in plans]
    assert sorted(itertools.chain(*own)) == list(range(len(plans[0].tiles)))
    for process, indices in enumerate(own):
        assert {plans[0].tiles[i].picture % processes for i in indices} <= {process}
    calls = [
        [(len(batch['index']), {plan.tiles[i][3:] for i in batch['index']}) for batch in plan]
        for plan in plans
    ]
    for call in calls:
        assert call == calls[0]
        assert all(rows % each == 0 and len(shapes) == 1 for rows, shapes in call)
    for plan in plans:
        for batch in plan:
            assert (batch['index'].dtype, batch['mask'].dtype) == (np.int32, np.float32)
    # A call over all processes has no more rows than asked for, rounded up to the devices.
    largest = -(-batch_size // devices) * devices
    assert all(rows * processes <= largest for rows, _ in calls[0])
    alone = merged(sizes, [TilePlan(sizes, tile, 1, 1)])
    for a, b, size in zip(alone, merged(sizes, plans, shuffle), sizes, strict=True):
        assert a.shape == (*size, 2)
        np.testing.assert_array_equal(a, b)
