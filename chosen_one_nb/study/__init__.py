"""A user study: do people see that a method follows the text, and that it keeps its character?

=============  ================================================================================================
`records`      what a study is made of and what raters answer, as schemas
`design`       which images are asked about, and who sees them in which order
`study`        a study's folder: the page for raters, the key that tells what they saw, their answers
`results`      what the answers say: means with intervals, the paper's tests, the decision by character
=============  ================================================================================================

`rating.js` draws the screens, in a notebook (`chosen_one_nb.widgets.rating`) and on the page that is sent to raters.
"""

from chosen_one_nb.study.records import StudyError
from chosen_one_nb.study.results import StudyResults, analyse
from chosen_one_nb.study.study import Study

__all__ = ["Study", "StudyError", "StudyResults", "analyse"]
