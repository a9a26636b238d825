"""Draw docs/pictures/architecture.svg: the way from images to a verdict, and the layers of the package.

    python docs/scripts/architecture.py

Plain SVG without fonts or scripts from elsewhere, so that it shows on a machine without a network.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

OUTPUT = Path(__file__).resolve().parents[1] / "pictures" / "architecture.svg"

WIDTH, BOX_HEIGHT, LAYER_HEIGHT, LAYERS_TOP = 960, 62, 44, 350
INK, FAINT, PAPER = "#1f2933", "#52606d", "#ffffff"
ENROLL, INSPECT, FILE, LAYER = "#dcebe2", "#dde7f5", "#fbe9c6", "#eef1f4"

# Title and place of each step; what it takes and gives stands in the documentation.
ENROLLMENT = (
    ("good images", "2 to 8 photographs"),
    ("read, resize", "images/"),
    ("views, scale", "enrollment/"),
    ("encode", "encoder/"),
    ("memory bank", "search/"),
    ("threshold", "enrollment/"),
)
INSPECTION = (
    ("one image", "of the line"),
    ("read, resize", "images/"),
    ("encode", "encoder/"),
    ("distance to bank", "search/"),
    ("map and score", "scoring/"),
    ("verdict", "inspection/"),
)
# From the top: a layer imports only from the layers below it.
LAYERS = (
    ("cli/", "the shell commands"),
    ("benchmark/", "plans, jobs, records, reports"),
    ("zoo/", "other methods, one file each"),
    ("offline.py", "whether all that keeps off the network"),
    (
        "catalog/   line/   export/   training/   estimator.py   latency.py   demo.py   doctor.py",
        "what is done with products; how encoders are trained",
    ),
    ("inspector.py", "the facade: Inspector"),
    ("artifact/   check/", "its .fsad file; what it gets wrong"),
    ("product/", "what is known of one part, and what was done to it"),
    ("enrollment/   batch.py", "from good images to a product; many images in order"),
    ("scoring/   datasets/", "the decision; readers of public datasets"),
    ("search/   registration/", "memory bank and nearest neighbors; images in one pose"),
    ("encoder/   inspection/", "image to feature maps; a result, its places and picture; can it be judged?"),
    ("images/   metrics/   documents/", "any input to RGB; figures of merit; YAML and JSON"),
    (
        "arguments.py   failures.py   host/   plugins.py   storage/",
        "arguments; errors of others; cores, fork, Ray; imports; files",
    ),
    ("errors.py   arrays.py   printable.py", "exceptions; array types; text that may be printed"),
)


def text(x: float, y: float, words: str, size: int = 14, color: str = INK, style: str = "") -> str:
    """One line of text."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}"{style}>{escape(words)}</text>'


def centered(x: float, y: float, words: str, size: int = 14, color: str = INK) -> str:
    """One line of text around x."""
    return text(x, y, words, size, color, ' text-anchor="middle"')


def box(x: float, y: float, width: float, height: float, fill: str) -> str:
    """One rounded rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{FAINT}"/>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """One line with a head at its end."""
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"/>'


def lane(y: float, title: str, steps: tuple[tuple[str, str], ...], fill: str) -> list[str]:
    """One row of steps with arrows between them."""
    gap, left = 26.0, 24.0
    width = (WIDTH - 2 * left - gap * (len(steps) - 1)) / len(steps)
    parts = [text(left, y - 12, title, 15, style=' font-weight="bold"')]
    for at, (name, place) in enumerate(steps):
        x = left + at * (width + gap)
        parts += [
            box(x, y, width, BOX_HEIGHT, fill),
            centered(x + width / 2, y + 27, name),
            centered(x + width / 2, y + 47, place, 12, FAINT),
        ]
        if at:
            parts.append(arrow(x - gap + 2, y + BOX_HEIGHT / 2, x - 3, y + BOX_HEIGHT / 2))
    return parts


def drawing() -> str:
    """The whole picture."""
    height = LAYERS_TOP + len(LAYERS) * (LAYER_HEIGHT + 3) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img" aria-labelledby="title">',
        '<title id="title">From good images to a product file, from an image to a verdict, and the layers of the '
        "package</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
        box(0.5, 0.5, WIDTH - 1, height - 1, PAPER),
        *lane(46, "Enroll, once for each part", ENROLLMENT, ENROLL),
        *lane(240, "Inspect, for each image", INSPECTION, INSPECT),
    ]
    # The file stands between the lanes: written by the upper one, read by the lower one.
    x, y, width = 620.0, 142.0, 316.0
    parts += [
        box(x, y, width, 50, FILE),
        centered(x + width / 2, y + 21, "bracket.fsad"),
        centered(x + width / 2, y + 40, "bank, threshold, settings: product/, artifact/", 12, FAINT),
        arrow(871, 46 + BOX_HEIGHT + 2, 871, y - 3),
        arrow(700, y + 52, 560, 237),
        arrow(740, y + 52, 720, 237),
    ]
    title = "Layers: each imports only from those below it"
    parts.append(text(24, LAYERS_TOP - 12, title, 15, style=' font-weight="bold"'))
    for at, (modules, purpose) in enumerate(LAYERS):
        y = LAYERS_TOP + at * (LAYER_HEIGHT + 3)
        parts += [
            box(24, y, WIDTH - 48, LAYER_HEIGHT, LAYER),
            text(38, y + 18, modules, 14, style=' xml:space="preserve"'),
            text(38, y + 35, purpose, 12, FAINT),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(drawing(), encoding="utf-8")
    print(OUTPUT)


if __name__ == "__main__":
    main()
