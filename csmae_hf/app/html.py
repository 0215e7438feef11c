"""Text for a page."""

import html


def escape(text: object) -> str:
    """Make text safe inside HTML and attributes, and inside the page's templates, to which braces and dollars mean something."""
    safe = html.escape(str(text))
    return safe.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")
