"""What each page of the built site shows around its text."""

import pytest

import liftnn

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("page", ["index.html", "api/layers/index.html"])
def test_the_header_shows_the_version_and_the_repository(page, site):
    text = (site / page).read_text(encoding="utf-8")
    assert f'md-source__fact--version">{liftnn.__version__}<' in text
    assert '<a href="https://github.com/liftnn/liftnn" title="Go to repository" class="md-source">' in text


def test_the_home_page_has_the_picture_of_the_benchmarks(site):
    assert 'src="benchmarks/results/dispatch.png"' in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "benchmarks/results/dispatch.png").stat().st_size > 0
