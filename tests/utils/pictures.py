"""What tests look for in pictures that charts were written to."""

import numpy as np


def ink_at_edges(picture: np.ndarray, *, width: int = 3) -> bool:
    """Whether something is drawn on the outermost pixels of a picture (h, w, 3) on white: then it was cut off."""
    inner = picture[width:-width, width:-width]
    return bool((picture < 200).sum() > (inner < 200).sum())
