"""What tests need of a page."""

import re
from html import unescape

from werkzeug.test import TestResponse


def csrf_of(answer: TestResponse) -> str:
    """The token that the page's forms carry."""
    found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
    assert found is not None, "the page has no form"
    return unescape(found.group(1))


def words_of(answer: TestResponse) -> str:
    """What a person reads: the text without tags, white space as single spaces."""
    text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", answer.text, flags=re.DOTALL)
    return " ".join(unescape(text).split())
