"""AlignBeam Local: borrowed alignment for local models at inference time (arXiv 2606.12342)."""

import logging
from importlib.metadata import version

__version__ = version("alignbeam-local")
logging.getLogger(__name__).addHandler(logging.NullHandler())
