"""What a run looks like on a terminal."""

import io

from rich.console import Console
from toy import toy_cohort

from features.audit import audit
from training.console import console_on, say
from training.terminal import TerminalProgress, print_audit


def printed(draw) -> str:
    stream = io.StringIO()
    draw(console_on(stream))
    return stream.getvalue()


def test_names_are_printed_as_they_are_brackets_included() -> None:
    cohort = toy_cohort(20, p=2)
    frame = cohort.features.set_axis(["dens [/mm]", "vol [mm] :smile:"], axis=1).assign(**{"flat [/x]": 1.0})
    named = type(cohort)(type(cohort.table)(frame), cohort.labels, cohort.patients)
    assert "1 constant columns: flat [/x]" in printed(lambda console: print_audit(console, "a [/b]", audit(named)))
    assert printed(lambda console: say(console, "Features", "vol [mm] [/mm] :smile:")) == "Features: vol [mm] [/mm] :smile:\n"


def test_a_log_gets_a_line_per_stage_and_generation() -> None:
    stream = io.StringIO()
    with TerminalProgress(Console(file=stream, width=120, markup=False), searches=2) as progress:
        progress.stage("fold 1 [of] 2")
        progress.searching(1, 10, 1, 2, 0.75)
        progress.searching(2, 10, 1, 2, 0.8)
        progress.searching(10, 10, 2, 2, 0.8)
        progress.stage("fold 2 of 2")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("fold 1 [of] 2")
    assert "generation 1 of 2, 1 of 10 candidates, best inner score 0.750" in lines[1]
    assert "left" in lines[2]
