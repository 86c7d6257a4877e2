"""Where one paragraph of a text ends and the next begins."""

import re

BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
