"""What is made of an answer's windows, read one after the other: has it turned harmful?"""

from ..result import Verdict

#: How much of the risk so far stays when a window is read (SEAT, ACL 2026).
KEPT = 0.8
#: Over this risk a harmful window is sure: two of four come to 0.30, two of five to 0.28.
REACHED = 0.3


class WindowRisk:
    """Sure of harm when two windows in a row are harmful, or one and the smoothed risk has grown too large.

    R = 0.8 R + 0.2 u, from 0 (SEAT, ACL 2026), where u is 1 for a window that is not safe and else 0: so many
    windows are enough, whatever the threshold is. That two in a row count is Qwen3Guard-Stream's rule for
    tokens (arXiv 2510.14276).
    """

    def __init__(self) -> None:
        self.risk = 0.0
        self.in_a_row = 0

    def add(self, verdict: Verdict) -> bool:
        """Take the next window's verdict; whether that makes it sure."""
        is_harmful = verdict.verdict != "safe"
        self.risk = KEPT * self.risk + (1 - KEPT) * is_harmful
        self.in_a_row = self.in_a_row + 1 if is_harmful else 0
        return self.in_a_row > 1 or (is_harmful and self.risk > REACHED)
