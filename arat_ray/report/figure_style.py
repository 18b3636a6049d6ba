"""How figures look: the colours and the style that they share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIZE = (5.6, 4.4)
"""Width and height in inches."""
# Blue and orange of Okabe and Ito (2008), distinct under every common colour blindness; greys for the rest.
FRONT, TEXT, OTHER, GREY = "#D55E00", "#333333", "#0072B2", "#666666"
# With these the rest of them that is seen on white.
COLOURS = (FRONT, OTHER, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # text stays text, as publishers ask
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with a dollar in it is a name
    "text.usetex": False,
}


@contextmanager
def style() -> Iterator[None]:
    """How figures look, whatever the user's matplotlibrc says; a name in letters that the font lacks is no warning."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
