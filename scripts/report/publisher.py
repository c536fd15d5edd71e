"""asv's plugin that adds the report to what `asv publish` writes, named in asv.conf.json; and that command."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from asv import util
from asv.console import log
from asv.publishing import OutputPublisher

from scripts import command

PROGRESS = re.compile(r"^(\[ *[\d.]+%\] )?[· ]*")
"""With what asv begins a line of its log."""

MARK = "info.json"
"""What only asv's own sites have."""


class Report(OutputPublisher):
    """Comes last: it moves asv's own page, and reads the results itself."""

    name = "report"
    button_label = "Report"
    description = "How far every AdamW is from the roofline"

    @classmethod
    def publish(cls, conf: Any, repo: Any, benchmarks: Any, graphs: Any, revisions: Any) -> None:
        from scripts.report import shells, site  # they take a while to import, and every asv command loads its plugins

        html = Path(conf.html_dir)
        for benchmark in benchmarks.values():
            benchmark["less_is_better"] = True  # asv-tachyon takes every tracked figure for a rate otherwise
        try:
            shells.install(html)
            site.build(conf, Path(conf.results_dir), html)
        except OSError as error:
            raise util.UserError(f"cannot write the report below {html}: {error.strerror}") from error
        log.info(f"report: {html / 'index.html'}")


def publish(config: Path, html: Path | None = None) -> None:
    """Have asv write its site and the report, into `html` or where the configuration says. Raises UserError.

    asv empties the folder first, so one that has anything else in it is refused.
    """
    if html and html.exists() and not (html / MARK).exists() and (not html.is_dir() or any(html.iterdir())):
        raise command.UserError(f"{html} has something else in it, which asv would delete; name an empty folder")
    asked = [sys.executable, "-m", "asv", "publish", "--no-pull", "--config", str(config)]
    asked += ["--html-dir", str(html)] if html else []
    done = subprocess.run(asked, capture_output=True, text=True, env=command.uncoloured())
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["no reason given"]
        reason = PROGRESS.sub("", command.one_line(lines[-1]))
        raise command.UserError(f"asv publish failed: {reason}")
