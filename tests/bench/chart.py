"""The targets as a chart: a bar for each, as long as the share of the target that is reached, and a line at 1.

Written directly as SVG, so that no drawing package is needed.
"""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from tests.bench.measuring import Row

COLOURS = {True: "#2a9d5c", False: "#d1495b", None: "#999999"}
WIDTH, LABELS, BARS = 1200, 560, 400
TOP, LINE, THICK = 76, 24, 14
SHARE_MAX = 2.0  # longer bars are cut off there


def svg(rows: Sequence[Row], subtitle: str) -> str:
    """The whole chart."""
    height = TOP + LINE * len(rows) + 20
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            _text(12, 26, "backscroll: how far each target is reached", size=17),
            _text(12, 46, subtitle, colour="#555555"),
            *_scale(height),
            *(part for place, row in enumerate(rows) for part in _bar(row, TOP + LINE * place)),
            "</svg>\n",
        ]
    )


def _scale(height: int) -> Iterator[str]:
    """Lines at shares of the target; the one at 1 is the target itself."""
    for share in (0, 0.5, 1, 1.5, 2):
        at, is_target = _at(share), share == 1
        colour, width = ("#222222", 2) if is_target else ("#dddddd", 1)
        yield f'<line x1="{at}" y1="{TOP - 6}" x2="{at}" y2="{height - 16}" stroke="{colour}" stroke-width="{width}"/>'
        yield _text(at, TOP - 12, "target" if is_target else f"{share:g}", anchor="middle")


def _bar(row: Row, top: float) -> Iterator[str]:
    """A row's name, its bar, and its figures beside it."""
    share = row.share or 0.0
    end = _at(min(share, SHARE_MAX))
    middle = top + THICK - 3
    yield _text(LABELS - 10, middle, f"{row.what} / {row.against}" if row.against else row.what, anchor="end")
    yield (
        f'<rect x="{LABELS}" y="{top}" width="{end - LABELS:.1f}" height="{THICK}" fill="{COLOURS[row.met]}" '
        f'fill-opacity="0.85"/>'
    )
    beyond = "▸ " if share > SHARE_MAX else ""
    shown = f"{beyond}{row.measured} of {row.target}" if row.met is not None else f"not measured ({row.target})"
    yield _text(LABELS + BARS + 10, middle, shown, colour=COLOURS[row.met])


def _at(share: float) -> float:
    return LABELS + BARS * share / SHARE_MAX


def _text(x: float, y: float, text: str, *, size: int = 12, colour: str = "#222222", anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(text)}</text>"
