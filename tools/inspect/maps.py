"""The part "maps": the feature maps of each stage for each picture."""

from inspection import maps
from tools.inspect.output import named
from tools.inspect.work import Work


def write(work: Work) -> None:
    """Writes a picture for each stage, or for that of --stage, of each IMAGE."""
    network, chosen = work.opened, work.arguments.stage
    for picture in work.pictures:
        look = network.look(picture.pixels[None])
        frames = network.task.pictures(picture.pixels)
        for name, stage in network.trace.stages.items():
            if chosen not in (None, name):
                continue
            for number, frame in enumerate(frames):
                numbered = [str(number)] if len(frames) > 1 else []
                drawn = maps.drawn(frame, look.stages[name][number], stage, name, picture.name)
                work.save(named('maps', picture.name, name, *numbered), *drawn)
