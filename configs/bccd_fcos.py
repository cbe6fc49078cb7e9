"""FCOS on a ResNet-18 of half the width: blood cells of three kinds, from scratch.

    python -m tools.prepare_data voc --source=DIR --name=bccd
    python train.py --config=configs/bccd_fcos.py --workdir=runs/bccd

DIR is the data set BCCD (github.com/Shenggan/BCCD_Dataset): 364 pictures of blood of 640x480 pixels
with red cells, white cells and platelets. Results: docs/detection.md.
"""

from configs import boxes_fcos


def get_config():
    """Returns the experiment's configuration."""
    config = boxes_fcos.get_config()
    config.data.name = 'bccd'
    config.data.image_height = 240
    config.epochs = 80.0
    config.data.mean = (0.7373, 0.6962, 0.7148)
    config.data.std = (0.0607, 0.1020, 0.0757)
    return config
