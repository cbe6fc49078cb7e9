"""Tasks by name: what may be registered, and what is refused."""

from typing import ClassVar

import pytest

from data_sources.targets import Label
from errors import UserError
from field import Field
from tasks import registry
from tasks.answer import Metric
from tasks.task import Task

pytestmark = pytest.mark.usefixtures('own_are_forgotten')


class Own(Task):
    name = 'own'
    metrics = (Metric('loss', higher_is_better=False),)
    targets: ClassVar = {'label': Label()}
    fields = (Field('own.size', 1, 'A size.'),)


def test_a_task_may_be_registered_again():
    registry.register(Own)
    again = registry.register(type('Again', (Own,), {'fields': (Field('own.size', 2, 'A size.'),)}))
    assert registry.get('own') is again
    assert [field.default for field in registry.fields() if field.name == 'own.size'] == [2]


def test_a_field_of_another_task_with_another_meaning_is_refused():
    registry.register(Own)
    other = {'name': 'other', 'fields': (Field('own.size', 5, 'Another size.'),)}
    with pytest.raises(ValueError, match=r"config.own.size of task other is another task's field"):
        registry.register(type('Other', (Own,), other))
    registry.register(type('Same', (Own,), {'name': 'same'}))  # one field of both
    assert [field.name for field in registry.fields()].count('own.size') == 1


@pytest.mark.parametrize('target', ['image', 'mask', 'index'])
def test_a_target_with_the_name_of_another_entry_is_refused(target):
    task = type('Wrong', (Own,), {'name': 'wrong', 'targets': {target: Label()}})
    with pytest.raises(ValueError, match=f'target "{target}" of task wrong: the name is taken'):
        registry.register(task)


def test_an_unknown_task_is_named_with_those_that_exist():
    with pytest.raises(UserError, match=r'config.task=clasification .* Did you mean "classific'):
        registry.get('clasification')
