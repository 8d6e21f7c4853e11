"""README renders elsewhere: its links are absolute and name existing files."""

from __future__ import annotations

import re

import pytest

from tests.helpers import ROOT

README = (ROOT / "README.md").read_text()
LINKS = re.findall(r"\]\(([^)\s]+)\)", README)
IMAGES = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", README)
# the addresses of the project, and the folder that each shows
SOURCES = {
    "https://github.com/pixelkernels/pixelkernels/blob/main/": ROOT,
    "https://raw.githubusercontent.com/pixelkernels/pixelkernels/main/": ROOT,
    "https://pixelkernels.readthedocs.io/en/latest/": ROOT / "docs",
}


def files(link: str) -> list[str]:
    """The file that a link into the project names, relative to its folder."""
    return [
        str((folder / link.removeprefix(address).partition("#")[0]).relative_to(ROOT))
        for address, folder in SOURCES.items()
        if link.startswith(address)
    ]


def test_length_is_at_most_200_lines() -> None:
    assert len(README.splitlines()) <= 200


def test_every_link_is_absolute() -> None:
    assert [link for link in LINKS if not link.startswith("https://")] == []


def test_images_come_from_the_repository_itself() -> None:
    assert len(IMAGES) >= 3
    assert [link for link in IMAGES if not link.startswith("https://raw.")] == []


@pytest.mark.parametrize("link", sorted({link for link in LINKS if files(link)}))
def test_a_link_into_the_project_names_an_existing_file(link: str) -> None:
    (name,) = files(link)
    assert (ROOT / re.sub(r"^(docs/.*)\.html$", r"\1.md", name)).is_file()


@pytest.mark.parametrize("link", sorted({link for link in LINKS if "#" in link and files(link)}))
def test_a_link_to_a_section_names_a_heading(link: str) -> None:
    (name,) = files(link)
    page, anchor = name.replace(".html", ".md"), link.partition("#")[2]
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.M)
    assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
