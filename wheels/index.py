"""Writes package indexes (PEP 503) to install from: a folder for each local version of the wheels,
such as cu130 and cpu, and `pure` for the pure wheel and the sdist.

  gh api --paginate --slurp repos/OWNER/NAME/releases | python -m wheels.index FOLDER

The releases' files stay where they are; the pages link to them, with their digests.
"""

from __future__ import annotations

import html
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from wheels.audit import local_version

PAGE = "<!DOCTYPE html>\n<html><body>\n{}\n</body></html>\n"
PROJECT = "pixelkernels"


def links(releases: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The lines of each index, the newest release first, as the releases come."""
    found = defaultdict(list)
    for release in releases:
        for asset in sorted(release["assets"], key=lambda asset: asset["name"]):
            name = asset["name"]
            if not name.startswith(f"{PROJECT}-") or not name.endswith((".whl", ".tar.gz")):
                continue
            # "sha256:..." in the API, "#sha256=..." in an index
            digest = f"#{asset['digest'].replace(':', '=')}" if asset.get("digest") else ""
            address = html.escape(asset["browser_download_url"] + digest)
            line = f'<a href="{address}">{html.escape(name)}</a><br>'
            found[local_version(name) or "pure"].append(line)
    return found


def write(folder: Path, releases: list[dict[str, Any]]) -> None:
    found = links([release for release in releases if not release["draft"]])
    for local, lines in found.items():
        project = folder / local / PROJECT
        project.mkdir(parents=True, exist_ok=True)
        (project / "index.html").write_text(PAGE.format("\n".join(lines)))
        listing = f'<a href="{PROJECT}/">{PROJECT}</a>'
        (project.parent / "index.html").write_text(PAGE.format(listing))
    listing = "\n".join(f'<a href="{local}/">{local}</a><br>' for local in sorted(found))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(PAGE.format(listing))


if __name__ == "__main__":
    pages = json.load(sys.stdin)
    write(Path(sys.argv[1]), [release for page in pages for release in page])
