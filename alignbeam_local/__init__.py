"""AlignBeam Local: borrowed alignment for local models at inference time (arXiv 2606.12342)."""
