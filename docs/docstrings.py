"""For the site: what docstrings say in Sphinx's way, said in Markdown's, before it is read."""

import re

import griffe


class MarkdownDocstrings(griffe.Extension):
    """Roles become code, links become links, and ``Example:`` the section that is not read as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            text = re.sub(r':(?:class|func|data|meth|mod|attr):`[~.!]?([^`]*)`', r'`\1`', obj.docstring.value)
            text = re.sub(r'`([^`<]*?) <(https?://[^>`]*)>`_+', r'[\1](\2)', text)
            obj.docstring.value = re.sub(r'(?m)^Example:$', 'Examples:', text)
