"""How large what is shown may be."""

MOST_FILTERS = 8  # on one sheet
MOST_SIDE = 15  # of a filter or a window; the numbers of a larger one cannot be read
SIZE, LEAST_SIZE, MOST_SIZE = 64, 8, 256  # pixels of the longer side of a picture
