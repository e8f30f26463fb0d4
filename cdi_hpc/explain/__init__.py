"""What becomes of every edit of a request on each launcher, and why."""

from cdi_hpc.explain.difference import Difference, between_launchers, between_specs
from cdi_hpc.explain.explanation import Explanation, explain, launchers
from cdi_hpc.explain.request import Wanted
from cdi_hpc.explain.rows import Edit
from cdi_hpc.explain.views import VERDICTS, Fate, Verdict, View

__all__ = [
    "VERDICTS",
    "Difference",
    "Edit",
    "Explanation",
    "Fate",
    "Verdict",
    "View",
    "Wanted",
    "between_launchers",
    "between_specs",
    "explain",
    "launchers",
]
