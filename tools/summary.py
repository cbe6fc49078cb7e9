"""Lists a network layer by layer: sizes, receptive fields, parameters, multiply-adds, memory.

    python -m tools.summary --model=vgg16
    python -m tools.summary --model=resnet18 --image=28x28x1 --config.model.stem=mnist
    python -m tools.summary --config=configs/digits_lenet.py
    python -m tools.summary --model=densenet121 --format=csv > densenet121.csv

Nothing is computed or downloaded. MACs are the multiply-adds of convolutions and dense layers for
one image; the field is the receptive field in pixels of the image. In a row marked *, the stride
leaves over pixels at the border that no window covers; in a row marked ~, it leaves over padding.
"""

import argparse
import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import command
from errors import UserError
from files import columns

if TYPE_CHECKING:  # JAX is imported once the command line is valid and XLA's log level is set
    from models import Network
    from models.trace import Layer, Trace

HEAD = ('layer', 'kind', 'filters', 'stride', 'pad', 'output', 'field', 'parameters', 'MACs', 'MB')
MARKS = {'pixels': '*', 'padding': '~', '': ''}
# stem -> the images that it is made for; networks without a stem are made for MNIST's images.
IMAGES = {'imagenet': (224, 224, 3), 'cifar': (32, 32, 3), 'mnist': (28, 28, 1)}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.summary',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--model', metavar='NAME', help='name of a model, as listed by `python train.py --list`')
    add('--config', metavar='FILE', help='configuration whose model and data set to use')
    add(
        '--image',
        metavar='HxWxC',
        help='height, width and channels of the images [those that the model is made for]',
    )
    add(
        '--num_classes',
        type=int,
        metavar='N',
        help='number of outputs; 0 for the features only [1000; small networks: 10]',
    )
    add(
        '--format',
        choices=('text', 'markdown', 'csv', 'json'),
        default='text',
        help='format of the output [text]',
    )
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    model, shape = describe(arguments, overrides)
    from models.trace import trace

    print(FORMATS[arguments.format](trace(model, shape), shape))
    return 0


def describe(
    arguments: argparse.Namespace, overrides: list[str]
) -> 'tuple[Network, tuple[int, int, int]]':
    """Returns the network of the command line and the shape of its images (h, w, channels).

    Raises:
      UserError: neither or both of --model and --config are given, or one of them is invalid.
    """
    if bool(arguments.model) == bool(arguments.config):
        raise UserError('Choose a network by either --model=NAME or --config=FILE.')
    import input_pipeline
    import models
    from configs import base, reading, schema
    from training import checks, experiment

    if arguments.config:
        config = reading.from_arguments(arguments.config, overrides)
    else:
        config = base.get_config()
        config.model.name = arguments.model
        schema.override(config, overrides, base.fields())
    options = checks.model_options(config)
    defaults = {name: option.default for name, option in models.options(config.model.name).items()}
    stem = (defaults | options).get('stem', 'mnist')
    shape, classes = IMAGES[stem], 1000 if stem == 'imagenet' else 10
    if arguments.config and not (arguments.image and arguments.num_classes is not None):
        split = input_pipeline.open_split(config, 'train')
        shape = input_pipeline.image_shape(config, split)
        classes = len(split.class_names)
    shape = parse_image(arguments.image) if arguments.image else shape
    classes = classes if arguments.num_classes is None else arguments.num_classes
    dtype = experiment.MODEL_DTYPES[config.dtype]
    return models.create(config.model.name, num_classes=classes, dtype=dtype, **options), shape


def parse_image(text: str) -> tuple[int, int, int]:
    """Parses 'HEIGHTxWIDTHxCHANNELS'.

    Raises:
      UserError: the text does not have that form, or a number has more than five digits.
    """
    match = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})', text)
    if not match:
        raise UserError(f'--image={text} must be HEIGHTxWIDTHxCHANNELS, such as 224x224x3.')
    height, width, channels = map(int, match.groups())
    return height, width, channels


def cells(layer: 'Layer') -> tuple[str, ...]:
    """Returns the cells of a layer's row as formatted text."""
    kind = layer.kind
    filters = ''
    if kind == 'convolution':
        filters = f'{layer.out_shape[-1]} x {layer.window}x{layer.window}x{layer.in_shape[-1]}'
    elif kind == 'dense':
        filters = f'{layer.out_shape[-1]} x {layer.in_shape[-1]}'
    elif layer.window:
        filters = f'{layer.window}x{layer.window}'
    return (
        layer.name + MARKS[layer.drops],
        kind,
        filters,
        '' if layer.stride is None else str(layer.stride),
        '' if layer.padding is None else str(layer.padding),
        _shape(layer.out_shape),
        'all' if math.isinf(layer.receptive_field) else f'{layer.receptive_field:,}',
        f'{layer.parameters:,}' if layer.parameters else '',
        f'{layer.multiply_adds:,}' if layer.multiply_adds else '',
        f'{layer.activation_bytes / 1e6:.2f}',
    )


def totals(trace: 'Trace') -> list[str]:
    """Returns the lines below the rows."""
    lines = [
        f'parameters   {trace.parameters:,} ({4 * trace.parameters / 1e6:.1f} MB as float32)',
        f'MACs         {trace.multiply_adds:,} ({trace.multiply_adds / 1e9:.3g} G) per image',
        f'activations  {trace.activation_bytes / 1e6:.1f} MB per image',
    ]
    drops = {layer.drops for layer in trace.layers}
    if 'pixels' in drops:
        lines.append('* the stride leaves over pixels at the border that no window covers')
    if 'padding' in drops:
        lines.append('~ the stride leaves over padding at the border')
    return lines


def as_text(trace: 'Trace', shape: tuple[int, int, int]) -> str:
    """Returns the summary as aligned columns."""
    rows = [HEAD, *map(cells, trace.layers)]
    return '\n'.join([f'image {_shape(shape)}', '', columns(rows, 3), '', *totals(trace)])


def as_markdown(trace: 'Trace', shape: tuple[int, int, int]) -> str:
    """Returns the summary as a Markdown table."""
    rows = [HEAD, ['---'] * 3 + ['---:'] * (len(HEAD) - 3), *map(cells, trace.layers)]
    lines = ['| ' + ' | '.join(cell.replace('*', '\\*') for cell in row) + ' |' for row in rows]
    return '\n'.join(
        [f'Image {_shape(shape)}', '', *lines, '', *(f'- {line}' for line in totals(trace))]
    )


def records(trace: 'Trace') -> list[dict[str, Any]]:
    """Returns the layers as plain values; an infinite receptive field is None."""
    rows = []
    for layer in trace.layers:
        row = {**dataclasses.asdict(layer), 'drops': layer.drops}
        for name in ('in_shape', 'out_shape'):
            row[name] = _shape(row[name])
        row['receptive_field'] = (
            None if math.isinf(layer.receptive_field) else layer.receptive_field
        )
        rows.append(row)
    return rows


def as_csv(trace: 'Trace', shape: tuple[int, int, int]) -> str:
    """Returns the layers as CSV, without totals, so that a column can be summed."""
    del shape
    rows, out = records(trace), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip('\n')


def as_json(trace: 'Trace', shape: tuple[int, int, int]) -> str:
    """Returns the layers, stages and totals as JSON."""
    stages = {
        name: {
            'shape': _shape(stage.shape),
            'stride': stage.stride,
            'receptive_field': None if math.isinf(stage.receptive_field) else stage.receptive_field,
        }
        for name, stage in trace.stages.items()
    }
    names = ('parameters', 'multiply_adds', 'activation_bytes')
    total = {name: getattr(trace, name) for name in names}
    return json.dumps(
        {'image': _shape(shape), 'layers': records(trace), 'stages': stages, 'totals': total},
        indent=1,
    )


def _shape(shape: Sequence[int]) -> str:
    return 'x'.join(map(str, shape))


FORMATS = {'text': as_text, 'markdown': as_markdown, 'csv': as_csv, 'json': as_json}

if __name__ == '__main__':
    command.run(main)
