"""The configuration: every mistake is refused, in one sentence that names the field."""

import math
import re
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import base, reading, schema
from errors import UserError
from training import checks, experiment


def config_file(tmp_path, body: str) -> str:
    path = tmp_path / 'my_config.py'
    text = 'from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n'
    path.write_text(text + textwrap.indent(textwrap.dedent(body), '    ') + '    return config\n')
    return str(path)


def read(tmp_path, body: str = 'pass\n', *arguments: str):
    return reading.from_arguments(config_file(tmp_path, body), list(arguments))


def test_defaults_are_valid_and_documented(tmp_path):
    config = read(tmp_path)
    assert schema.flatten(config) == {field.name: field.default for field in base.fields()}
    assert all(field.doc.endswith('.') for field in base.fields())
    checks.check(config)


@pytest.mark.parametrize(
    ('body', 'words'),
    [
        ('config.batch_sise = 3\n', ['line 6', 'batch_sise', 'batch_size']),
        ('config.optimizer.lerning_rate = 3\n', ['line 6', 'lerning_rate', 'learning_rate']),
        ('config.batch_size = "many"\n', ['line 6', 'batch_size']),
        ('config.model = dict(name="lenet")\n', ['config.model', 'one by one']),
        ('config.model.name = None\n', ['config.model.name', 'text', 'None']),
        ('config.optimizer.momentum = "a"\n', ['config.optimizer.momentum', 'float']),
        ('config.data.mean = ("a",)\n', ['config.data.mean', 'tuple of numbers']),
        ('config.unlock(); config.sead = 3\n', ['config.sead', 'Did you mean "config.seed"']),
        ('config.freeze = "stem*"\n', ['line 6', 'freeze']),
        ('config.freeze = (1,)\n', ['config.freeze', "tuple of texts, such as ('stem*',)"]),
        ('undefined_name\n', ['line 6', 'undefined_name']),
        ('return 3\n', ['ConfigDict']),
        ('config.epochs = (\n', ['line', 'SyntaxError']),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, body, words):
    with pytest.raises(UserError) as error:
        read(tmp_path, body)
    assert 'my_config.py' in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ('argument', 'words'),
    [
        ('--config.sead=3', ['config.sead', 'Did you mean "config.seed"']),
        ('--config.momentum=3', ['config.momentum', 'Did you mean "config.optimizer.momentum"']),
        ('--config.seed', ['needs a value']),
        ('--config.seed=', ['int']),
        ('--config.seed=1.5', ['int', '1.5']),
        ('--config.seed=True', ['int', 'True']),
        ('--config.seed=-1', ['at least 0']),
        ('--config.seed=4294967296', ['at most 4294967295']),
        ('--config.optimizer.learning_rate=0', ['greater than 0']),
        ('--config.optimizer.learning_rate=1e999', ['finite']),
        ('--config.label_smoothing=1', ['less than 1']),
        ('--config.sync_batch_norm=maybe', ['bool', 'maybe']),
        ('--config.schedule.name=cosin', ['Did you mean "cosine"']),
        ('--config.data.mean=(0.1,"x")', ['tuple of numbers']),
        ('--config.epochs=None', ['float', 'None']),
        ('--config.steps={[]:1}', ['of type int']),
        ('--config.freeze=("a*", 1)', ['config.freeze', 'tuple of texts']),
        ('--config.layer_decay=1.5', ['at most 1']),
        ('--config.data.train_per_class=0', ['at least 1']),
        ('--config.data.std=0', ['config.data.std', 'at least 0.001']),
        ('--config.data.std=1e23', ['config.data.std', 'at most 1']),
        ('--config.data.mean=nan', ['config.data.mean', 'tuple of numbers']),
        ('--config.data.mean=-0.5', ['config.data.mean', 'at least 0']),
        ('--config.data.crop_ratio=(1,1e300)', ['config.data.crop_ratio', 'at most 100']),
        ('--config.schedule.milestones=(-1,3)', ['config.schedule.milestones', 'greater than 0']),
        ('--config.model.width=1e-300', ['config.model.width', 'at least 0.01']),
        ('--config.optimizer.learning_rate=1e-300', ['0 or at least 1e-12']),
        ('--config.devices=1000000', ['config.devices', 'at most 256']),
        ('--config.batch_size=1000000000000', ['config.batch_size', 'at most 1000000']),
        ('--config.data.image_size=1000000000', ['config.data.image_size', 'at most 10000']),
        ('--config.steps=1000000000000000000', ['config.steps', 'at most 1000000000']),
        ('--config.steps=' + '9' * 5000, ['config.steps']),
        ('--config.steps=0x' + 'f' * 5000, ['config.steps', 'at most', 'thousands of digits']),
        ('--config.seed=\u0663', ['config.seed', 'int']),
        ('--config.batch_size=\u00b2', ['config.batch_size', 'int']),
        ('--config.data.mean=' + '(' * 5000, ['config.data.mean', 'tuple of numbers']),
        ('--config.data.mean=[' + '0.5,' * 5000 + ']', ['config.data.mean', 'at most 1,000 items']),
        ('--config.data.name=' + 'a' * 5000, ['config.data.name', 'at most 4,000 characters']),
        ('--config.data.dir=a\0b', ['config.data.dir', 'printable']),
    ],
)
def test_a_mistake_on_the_command_line_is_named(tmp_path, argument, words):
    with pytest.raises(UserError) as error:
        read(tmp_path, 'pass\n', argument)
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--config.model.name=lenett'], ['config.model', 'Did you mean "lenet"']),
        (['--config.model.units=3'], ['config.model.units', 'lenet', 'activation']),
        (['--config.model.activation=relux'], ['config.model', 'Did you mean "relu"']),
        (['--config.optimizer.beta1=0.5'], ['config.optimizer.beta1', 'sgd', 'momentum']),
        (['--config.optimizer.momentum=0'], ['nesterov', 'momentum']),
        (['--config.schedule.milestones=(3,)'], ['milestones', 'schedule.name=step']),
        (['--config.schedule.name=step'], ['needs config.schedule.milestones']),
        (['--config.schedule.name=step', '--config.schedule.milestones=(3,2)'], ['increase']),
        (['--config.schedule.name=constant', '--config.schedule.final=0.1'], ['final']),
        (['--config.batch_size=100', '--config.accumulate=3'], ['100', '3', 'divisible']),
        (['--config.data.std=[]'], ['config.data.std', 'for each channel']),
        (['--config.data.mean=()'], ['config.data.mean', 'for each channel']),
        (['--config.data.crop_ratio=()'], ['config.data.crop_ratio']),
        (['--config.augment.color_jitter=[]'], ['config.augment.color_jitter']),
    ],
)
def test_contradictions_are_refused(tmp_path, arguments, words):
    config = read(tmp_path, 'pass\n', *arguments)
    with pytest.raises(UserError) as error:
        checks.check(config)
    for word in words:
        assert word in str(error.value)


def test_a_batch_that_the_devices_cannot_share_is_refused_with_sizes_that_work(tmp_path):
    config = read(tmp_path, 'config.batch_size = 100\n')
    checks.check_devices(config, 4)
    with pytest.raises(UserError, match='96 or 104'):
        checks.check_devices(config, 8)


def test_a_schedule_beyond_the_end_is_refused(tmp_path):
    config = read(tmp_path, 'config.epochs = 2.0\nconfig.schedule.warmup = 3.0\n')
    found = experiment.Experiment(config, (28, 28, 1), tuple('0123456789'), 1000)
    with pytest.raises(UserError, match='warmup=3 epochs lies beyond the end'):
        found.check_lengths()


def test_overrides_take_the_fields_type(tmp_path):
    config = read(
        tmp_path,
        'pass\n',
        '--config.epochs=3',
        '--config.data.mean=0.5',
        '--config.data.std=[0.1,0.2]',
        '--config.sync_batch_norm=false',
        '--config.optimizer.momentum=none',
        '--config.data.dir=17',
    )
    assert (config.epochs, type(config.epochs)) == (3.0, float)
    assert config.data.mean == (0.5,)
    assert config.data.std == (0.1, 0.2)
    assert config.sync_batch_norm is False
    assert config.optimizer.momentum is None
    assert config.data.dir == '17'


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('stem*', ('stem*',)),
        ('[!h]*', ('[!h]*',)),
        ('"stem*"', ('stem*',)),
        ("('stem*', 'stage1*')", ('stem*', 'stage1*')),
        ("['stem*']", ('stem*',)),
        ('head/*=10', ('head/*=10',)),
        ('()', ()),
        ('1', ('1',)),
    ],
)
def test_texts_on_the_command_line_need_no_brackets(tmp_path, text, value):
    config = read(tmp_path, 'config.freeze = ("other",)\n', f'--config.freeze={text}')
    assert config.freeze == value


def test_a_stored_config_is_read_back_the_same(tmp_path):
    import json

    body = 'config.schedule.name = "step"\nconfig.freeze = ("a*", "b*")\n'
    config = read(tmp_path, body, '--config.schedule.milestones=(1,2)')
    (tmp_path / 'config.json').write_text(json.dumps(schema.plain(config)))
    again = reading.from_arguments(str(tmp_path / 'config.json'), [])
    assert schema.flatten(again) == schema.flatten(config)
    assert not schema.differences(config, again, base.fields(), base.EXPERIMENT)


def test_differences_name_fields_of_one_scope_only(tmp_path):
    old = read(tmp_path)
    new = read(tmp_path, 'pass\n', '--config.seed=5', '--config.devices=2')
    assert schema.differences(old, new, base.fields(), base.EXPERIMENT) == {'seed': (0, 5)}
    assert schema.differences(old, new, base.fields(), base.RUN) == {'devices': (0, 2)}


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(())
    ),
    st.sampled_from(base.fields()),
)
def test_whatever_passes_has_the_fields_type_and_range(value, field):
    try:
        checked = field.check(value)
    except UserError as caught:
        error = str(caught)
    else:
        error = None
    if error is not None:
        assert f'config.{field.name}' in error
        return
    if checked is None:
        assert field.default is None
        return
    assert type(checked) is field.kind
    if field.kind in (int, float):
        assert math.isfinite(checked)
        assert field.low is None or checked >= field.low
        assert field.above is None or checked > field.above
        assert field.high is None or checked <= field.high
        assert field.below is None or checked < field.below


NUMBERS = [f for f in base.fields() if {f.kind, f.kind is tuple and f.items} & {int, float}]


@pytest.mark.parametrize('field', NUMBERS, ids=lambda field: field.name)
def test_every_number_has_bounds_and_a_sentence_beyond_them(field):
    """No number is without a bound on either side, whatever field is added."""

    def checked(number):
        value = field.check((number,) if field.kind is tuple else number)
        return value[0] if field.kind is tuple else value

    kind = field.items if field.kind is tuple else field.kind
    words = [word for _, word, _ in field.bounds]
    assert {'at least', 'greater than'} & set(words)
    assert {'at most', 'less than'} & set(words)
    for bound, word, _ in field.bounds:
        assert math.isfinite(bound)
        down = word in ('at least', 'greater than')
        more = 1 + abs(bound) / 100  # enough to be another number
        beyond = [bound - more, -(10**400)] if down else [bound + more, 10**400]
        if word in ('at least', 'at most'):
            assert checked(kind(bound)) == bound
        else:
            beyond.append(bound)
        for number in beyond:
            with pytest.raises(UserError, match=rf'^config\.{re.escape(field.name)} must be '):
                checked(kind(number) if abs(number) < 1e300 else number)
    if kind is float:
        for number in (math.nan, math.inf, -math.inf, field.smallest / 2, -field.smallest / 2):
            with pytest.raises(UserError, match=rf'^config\.{re.escape(field.name)} must be '):
                checked(number)
