"""The part "embedding": the features of a split as points in a plane."""

from inspection.embedding import embed
from tools.inspect.output import named
from tools.inspect.work import Work


def write(work: Work) -> None:
    """Writes the examples of the split as dots and as pictures.

    Raises:
      UserError: there are too few examples or features, or none differ.
    """
    features, split = work.surveyed.features, work.arguments.split
    embedding = embed(features.features)
    title = f'{work.title}, {split} split'
    name = ('embedding', split, features.stage)
    work.save(named(*name), *features.points(embedding, title))
    pictures = features.thumbnails(embedding, work.examples, title)
    work.save(named(*name, 'pictures'), *pictures)
