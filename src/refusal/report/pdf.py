"""A figure as a PDF, for papers and slides: drawn by typst, which takes an SVG as it is and keeps its words as text."""

from refusal.errors import Unavailable

# The page is as large as the figure; without a date the same figure gives the same bytes.
_PAGE = b"""#set document(date: none)
#set page(width: auto, height: auto, margin: 0pt)
#image(bytes(sys.inputs.figure), format: "svg")"""


def as_pdf(figure: str) -> bytes:
    """Return an SVG that stands alone as a PDF of one page. Raises Unavailable where typst is not installed."""
    try:
        import typst
    except ImportError as error:
        raise Unavailable('Figures as PDF need the package typst: pip install "refusal[figures]"') from error
    return typst.compile(_PAGE, format="pdf", sys_inputs={"figure": figure})
