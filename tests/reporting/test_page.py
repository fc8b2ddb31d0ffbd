"""Every text of a page is text, whatever letters it is made of."""

import pytest

from mcar_tf.reporting import page


@pytest.mark.parametrize(
    "make", [page.paragraph, page.heading, page.warning, lambda text: page.bullets([text])]
)
def test_names_are_neither_markup_nor_control_characters(make):
    found = make("<b>&\x1b[31m\x00\ud800\u202e")
    assert "&lt;b&gt;&amp;\\x1b[31m\\x00\\ud800\\u202e" in found
    found.encode()
