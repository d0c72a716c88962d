"""A hook of mkdocs: links to files outside docs/ work in a checkout, not on the site."""

import posixpath
import re

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]*)[^)]*\)")


def on_page_markdown(markdown: str, page, **_) -> str:
    """Replaces links that leave docs/ with the path in the repository."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        return link[0] if path.startswith("docs/") else f"`{path}`"

    return _LINK.sub(replace, markdown)
