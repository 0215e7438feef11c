"""Text and pictures for a page."""

import html


def escape(text: object) -> str:
    """Make text safe inside HTML and attributes, and inside the page's templates, to which braces and dollars mean something."""
    safe = html.escape(str(text))
    return safe.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def figure(uri: str, title: str, name: str = "") -> str:
    """A picture with its title below; who cannot see it is told the name of what it shows too."""
    words = f"{name}, {title}" if name else title
    return (
        '<figure><button type="button" class="enlarge" title="Enlarge">'
        f'<img src="{uri}" alt="{escape(words)}" width="120" height="120"></button>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
