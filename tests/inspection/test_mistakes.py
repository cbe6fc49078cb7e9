"""The surest mistakes of a pass against those that a slow look at all answers finds."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_sources import digits
from errors import UserError
from inspection import examples, survey
from inspection.mistakes import Mistakes
from inspection.survey import Glance
from tasks.classification import Classification
from tests.tasks.turned import Turned

NAMES = tuple('0123456789')


@pytest.fixture(scope='module')
def looked(network):
    return examples.of(network.experiment, 'test')


@pytest.fixture(scope='module')
def look(network):
    return network.look(digits.load('test').images)


class Glances:
    """Keeps all that it is shown."""

    def __init__(self):
        self.chunks, self.glances = [], []

    def add(self, chunk, glance):
        self.chunks.append(chunk)
        self.glances.append(glance)


@pytest.fixture(scope='module')
def found(network, looked):
    """The mistakes of a pass, and all of its glances."""
    mistakes, glances = Mistakes(network.task, NAMES, most=10_000), Glances()
    survey.run(network, looked, [mistakes, glances])
    return mistakes, glances


def test_a_pass_sees_each_stage_in_short(found, look):
    _, glances = found
    answers = np.concatenate([glance.predictions for glance in glances.glances])
    np.testing.assert_allclose(answers, look.predictions, atol=1e-6)
    for name, stage in look.stages.items():
        flat = stage.reshape(len(stage), -1, stage.shape[-1])
        strongest, places, means = (
            np.concatenate([getattr(glance, what)[name] for glance in glances.glances])
            for what in ('strongest', 'places', 'means')
        )
        np.testing.assert_allclose(strongest, flat.max(1), rtol=1e-5, atol=1e-5)
        there = np.take_along_axis(flat, places[:, None], 1)[:, 0]
        np.testing.assert_allclose(there, flat.max(1), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(means, flat.mean(1), rtol=1e-4, atol=1e-5)


def test_the_mistakes_are_all_wrong_answers_the_surest_first(found, look):
    mistakes, _ = found
    labels, answers = digits.load('test').labels, look.predictions
    wrong = np.flatnonzero(answers.argmax(1) != labels)
    assert mistakes.examples == len(labels)
    assert mistakes.count == len(wrong) > 3, 'the network has to be wrong now and then'
    expected = wrong[np.argsort(-answers[wrong].max(1), kind='stable')]
    worst = mistakes.worst()
    assert [mistake.position for mistake in worst] == expected.tolist()
    for mistake in worst:
        row = answers[mistake.position]
        assert mistake.badness == pytest.approx(row.max(), abs=1e-6)
        assert mistake.truth == str(labels[mistake.position])
        assert mistake.answer == f'{row.argmax()} {row.max():.1%}'
        assert mistake.described['top'][0]['class'] == str(row.argmax())


def test_the_table_lists_them(found):
    mistakes, _ = found
    head, _, titles, *lines = mistakes.table().splitlines()
    assert head == mistakes.listed()
    assert titles.split() == ['example', 'truth', 'answer']
    assert [int(line.split()[0]) for line in lines] == [m.position for m in mistakes.worst()]


class Chunk:
    def __init__(self, labels, positions):
        self.labels, self.positions = np.asarray(labels), np.asarray(positions)

    def __len__(self):
        return len(self.positions)

    def target(self, row):
        return {'label': self.labels[row]}


@settings(max_examples=50)
@given(st.data(), st.integers(1, 6), st.integers(1, 5))
def test_the_worst_are_kept_however_the_examples_come(data, most, size):
    """Few different probabilities, so that some are equal."""
    sure = st.sampled_from([0.5, 0.7, 0.9])
    drawn = data.draw(st.lists(st.tuples(sure, st.booleans()), max_size=20))
    task = Classification(2)
    mistakes = Mistakes(task, ('a', 'b'), most)
    for start in range(0, len(drawn), size):
        part = drawn[start : start + size]
        answers = np.array([(p, 1 - p) if p > 0.5 else (0.51, 0.49) for p, _ in part])
        chunk = Chunk([int(wrong) for _, wrong in part], range(start, start + len(part)))
        mistakes.add(chunk, Glance(answers, *[{}] * 5))
    wrong = [(-p, position) for position, (p, is_wrong) in enumerate(drawn) if is_wrong]
    assert mistakes.count == len(wrong)
    assert [m.position for m in mistakes.worst()] == [i for _, i in sorted(wrong)][:most]


def test_a_task_without_classes_has_mistakes_too(looked):
    mistakes = Mistakes(Turned(5.0), (), 2)
    chunk = Chunk([], [4, 7, 9, 11])
    chunk.target = lambda row: {'angle': np.array([10.0 * row], np.float32)}
    mistakes.add(chunk, Glance(np.array([0.0, 1.0, 17.0, 60.0]), *[{}] * 5))
    assert [(m.position, m.badness) for m in mistakes.worst()] == [(11, 30.0), (7, 9.0)]
    assert mistakes.rows()[1] == ('11', '30 degrees', '60.0 degrees')
    assert mistakes.sheet(looked, 'digits').startswith(b'\x89PNG')


def test_no_mistake_is_a_sentence_and_one_that_is_no_number_comes_first(looked):
    mistakes = Mistakes(Classification(2), ('a', 'b'))
    mistakes.add(Chunk([0, 0], [0, 1]), Glance(np.array([[0.9, 0.1]] * 2), *[{}] * 5))
    assert mistakes.table() == 'No answer was wrong: all 2 examples are right.\n'
    with pytest.raises(UserError, match='No answer was wrong'):
        mistakes.sheet(looked, 'digits')
    answers = np.array([[0.1, 0.9], [np.nan, np.nan]])
    mistakes.add(Chunk([0, 1], [2, 3]), Glance(answers, *[{}] * 5))
    assert [m.position for m in mistakes.worst()] == [3, 2]
    assert mistakes.text() == '2 of 4 answers were wrong (50.00 %).'
    assert mistakes.listed() == f'{mistakes.text()} The worst come first.'
    read = json.loads(json.dumps(mistakes.to_json(), allow_nan=False))
    assert [mistake['badness'] for mistake in read['worst']] == [None, 0.9]


def test_how_many_of_the_mistakes_are_shown_is_said():
    mistakes = Mistakes(Classification(2), ('a', 'b'), 2)
    mistakes.add(Chunk([1] * 3, [0, 1, 2]), Glance(np.array([[0.9, 0.1]] * 3), *[{}] * 5))
    sentence = '3 of 3 answers were wrong (100.00 %). The 2 worst are shown, the worst first.'
    assert mistakes.listed() == sentence
    assert mistakes.table().startswith(sentence + '\n')
