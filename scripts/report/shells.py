"""asv's own pages, and asv-tachyon's, over what `asv publish` wrote: both under names of their own, offline."""

import json
import re
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from benchmarks.harness.files import write_whole

CLASSIC, TACHYON = "classic.html", "tachyon.html"

LIBRARIES = Path(__file__).parent / "classic"
"""What asv's pages take from other hosts, in the versions they ask for."""

ELSEWHERE = re.compile(r'(src|href)="https://[^"]*?/([^/"]+\.(?:js|css))"[^>]*>')
INDEX_LINK = "index.html#"
INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>.*?</script>", re.DOTALL)
"""asv's page has one such script, for hosts that do not answer."""

HEAD = "<head>"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""Their content security policy: both style what they draw inline, and ask for data; no text becomes a script."""


def install(html: Path) -> None:
    """Move asv's page out of the way of the report's, and put asv-tachyon's beside it."""
    write_whole(html / CLASSIC, offline((html / "index.html").read_text()))
    shutil.copytree(LIBRARIES, html / LIBRARIES.name, dirs_exist_ok=True)
    feed = html / "regressions.xml"
    write_whole(feed, feed.read_text().replace(INDEX_LINK, f"{CLASSIC}#"))
    shell = Path(str(files("asv_tachyon") / "static"))
    write_whole(html / TACHYON, guarded((shell / "index.html").read_text()))
    shutil.copy(shell / "favicon.svg", html)
    shutil.copytree(shell / "assets", html / "assets", dirs_exist_ok=True)


def offline(page: str) -> str:
    """asv's page with the libraries beside it; a file from the same place needs no check and no permission."""

    def beside(found: re.Match[str]) -> str:
        same, unminified = found[2], found[2].replace(".min.", ".")
        name = same if (LIBRARIES / same).exists() else unminified
        return f'{found[1]}="{LIBRARIES.name}/{name}">'

    return guarded(ELSEWHERE.sub(beside, INLINE.sub("", page)))


def guarded(page: str) -> str:
    return page.replace(HEAD, f'{HEAD}<meta http-equiv="Content-Security-Policy" content="{POLICY}">', 1)


def tell(html: Path, subjects: Mapping[str, str]) -> None:
    """What asv-tachyon asks for besides asv's data: the commits' subjects, no profile, and no mute."""
    write_whole(html / "commits.json", json.dumps(subjects))
    write_whole(html / "profiles.json", json.dumps({"paths": {}}))
    write_whole(html / "regressions-ignore.json", json.dumps([]))
