"""The part "filters": the weights of each layer as pictures, and statistics of them."""

from inspection import distribution, drawing, filters, weights
from tools.inspect.output import named
from tools.inspect.work import Work

MOST_SHEETS, MOST_NAMES = 8, 6


def write(work: Work) -> None:
    """Writes the sheets of --layer, or of some layers, and the statistics of all.

    Raises:
      UserError: the layer of --layer has no weights.
    """
    network, layer = work.opened, work.arguments.layer
    if layer is None:
        rows = weights.statistics(network.variables, network.trace.layers)
        print('  ' + weights.summary(rows))
        work.save('filters-statistics.txt', weights.table(rows), 'Statistics of all weights.')
        if overview := distribution.overview(network):
            work.save('filters-overview.png', *overview)
    names = filters.layers(network)
    shown = [layer] if layer else [names[i] for i in drawing.spread(len(names), MOST_SHEETS)]
    for name in shown:
        work.save(named('filters', name), *filters.sheet(network, name))
    others = [name for name in names if name not in shown]
    if layer is None and others:
        listed = ', '.join(others[:MOST_NAMES]) + ', ...' * (len(others) > MOST_NAMES)
        print(
            f'  {len(others)} of {len(names)} layers with filters have no sheet yet; --layer=NAME '
            f'gives one, and tools.summary lists them: {listed}'
        )
