"""The pictures of a sweep: which there are, and that nothing in them stands on anything else."""

import itertools
import math
from types import SimpleNamespace

import optuna
import pytest
from matplotlib.figure import Figure

from configs import base
from configs.search import Categorical, Float, Int, Objective, Sweep
from sweeps import pictures, study
from sweeps.conditions import Conditions
from tests.support import slow

RATE = {'optimizer.learning_rate': Float(3e-4, 3e-2, log=True)}
TWO = {**RATE, 'seed': Int(0, 1000)}
TWELVE = {
    **TWO,
    'label_smoothing': Float(0.0, 0.2),
    'augment.shift': Float(0.5, 3.0),
    'augment.rotate': Float(2.0, 20.0),
    'optimizer.name': Categorical(('sgd', 'adam', 'adamw', 'rmsprop', 'lamb', 'lars')),
    'optimizer.momentum': Categorical((None, 0.5, 0.9)),
    'optimizer.weight_decay': Float(1e-6, 1e-2, log=True),
    'batch_size': Int(16, 256, log=True),
    'model.name': Categorical(('lenet', 'fcn')),
    'model.pooling': Categorical(('max', 'average')),
    'optimizer.trust_coefficient': Float(1e-4, 2e-4, log=True),
}
LONG_NAME = 'a_sweep_$whose_name_is_as_long_as_somebody_liked_it_to_be_and_longer_than_a_title'


def draw(folder, space, trials: int, evaluations: int = 5, pruner: str = 'none'):
    """Draws a sweep whose trials train nothing; returns the figures by name and what was said."""
    folder.mkdir()
    config, said, figures = base.get_config(), [], []
    sweep = Sweep(space, Objective('validation/accuracy', 'maximize'), seed=1)
    about = study.describe(sweep, config, 'random', None)
    known = Conditions(sweep, config)
    storage = optuna.storages.InMemoryStorage()
    found = study.Study(sweep, folder, trials, 'random', pruner, storage, about, True, known)
    while (trial := found.ask()) is not None:
        if trial.number % 17 == 5:
            trial.fail('not finite')
            continue
        rate = trial.parameters['optimizer.learning_rate']
        for n in range(1, evaluations + 1):
            value = (0.98 - 0.02 * math.log10(rate / 0.004) ** 2) * (1 - math.exp(-n * (1 + rate)))
            if trial.report(value, 10 * n) and n < evaluations:
                trial.prune()
                break
        else:
            trial.complete()
    work = SimpleNamespace(config=config, sweep=sweep, study=found, folder=folder, say=said.append)
    with pytest.MonkeyPatch.context() as patch:
        save = Figure.savefig
        patch.setattr(Figure, 'savefig', lambda self, *a, **k: figures.append(self) or save(
            self, *a, **k))  # fmt: skip
        pictures.Drawer(work).draw(folder / 'pictures')
    names = ('history', 'slices', 'learning_curves', 'importances')[: len(figures)]
    assert {path.stem for path in (folder / 'pictures').iterdir()} == set(names)
    return dict(zip(names, figures, strict=True)), said


def texts(axes):
    """The texts beside and above an axis, which are not to touch."""
    shown = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label,
             axes.yaxis.label]  # fmt: skip
    low, high = sorted(axes.get_xlim())
    bottom, top = sorted(axes.get_ylim())
    for text in shown:
        x, y = text.get_position()
        inside = text not in axes.get_xticklabels() or low <= x <= high
        inside = inside and (text not in axes.get_yticklabels() or bottom <= y <= top)
        if text.get_text() and text.get_visible() and inside:
            yield text


def check(figure: Figure) -> None:
    """Every text is inside of the picture, and none touches another one."""
    renderer = figure.canvas.get_renderer()
    all_texts = [text for axes in figure.axes for text in texts(axes)]
    all_texts += [figure._suptitle, *(t for legend in figure.legends for t in legend.get_texts())]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in all_texts]
    for name, box in boxes:
        assert min(box.x0, box.y0) >= 0, name
        assert box.x1 <= figure.bbox.x1, name
        assert box.y1 <= figure.bbox.y1, name
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one, other)


@pytest.mark.parametrize(
    ('name', 'space', 'trials', 'options'),
    [
        ('four', TWO, 4, {}),
        slow('one field, one evaluation', RATE, 9, {'evaluations': 1}),
        slow(LONG_NAME, TWELVE, 30, {'pruner': 'asha'}),
    ],
)
def test_no_text_of_a_picture_is_cut_or_covered(name, space, trials, options, tmp_path):
    figures, _ = draw(tmp_path / name, space, trials, **options)
    for figure in figures.values():
        check(figure)
        title = figure._suptitle.get_text()
        assert 'validation/accuracy of lenet' in title
        assert 'on digits' in title
        assert name[:15] in title
    assert len(figures['slices'].axes) == len(space)


def test_the_best_so_far_climbs_in_steps_and_the_axis_is_in_percent(tmp_path):
    figures, _ = draw(tmp_path / 'sweep', TWO, 12)
    axes = figures['history'].axes[0]
    line = next(line for line in axes.lines if line.get_drawstyle() == 'steps-post')
    values = list(line.get_ydata())
    assert values == sorted(values)
    assert len(values) >= 3
    assert 50 < values[-1] <= 100
    assert '%' in axes.get_ylabel()


@pytest.mark.slow
def test_axes_are_logarithmic_where_the_space_is(tmp_path):
    space = {**TWO, 'model.pooling': Categorical(('max', 'average'))}
    figures, _ = draw(tmp_path / 'sweep', space, 6)
    assert [axes.get_xscale() for axes in figures['slices'].axes] == ['log', 'linear', 'linear']
    labels = [label.get_text() for label in figures['slices'].axes[2].get_xticklabels()]
    assert labels == ['max', 'average']


@pytest.mark.slow
def test_importances_are_drawn_of_enough_trials_only(tmp_path):
    figures, said = draw(tmp_path / 'few', TWO, 12)
    assert 'importances' not in figures
    assert said == ['importances.png is not drawn: with 2 fields it needs 20 completed trials, and '
                    'there are 11']  # fmt: skip
    figures, said = draw(tmp_path / 'enough', TWO, 24)
    assert said == []
    bars = figures['importances'].axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(100)


@pytest.mark.slow
def test_a_curve_ends_where_its_trial_was_stopped(tmp_path):
    figures, _ = draw(tmp_path / 'sweep', TWO, 12, pruner='asha')
    axes = figures['learning_curves'].axes[0]
    ends = {max(line.get_xdata()) for line in axes.lines if len(line.get_xdata())}
    assert 5 in ends
    assert min(ends) < 5
    labels = [text.get_text() for text in figures['learning_curves'].legends[0].get_texts()]
    assert any(label.startswith('the best, trial ') for label in labels)
    assert any(label.startswith('stopped early (') for label in labels)
