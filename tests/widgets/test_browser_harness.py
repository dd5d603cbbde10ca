"""The harness of the browser tests detects scripts that run and requests to other servers."""

from __future__ import annotations

from collections.abc import Callable

from browser import Opened


def test_scripts_and_requests_of_a_notebook_are_detected(notebook: Callable[..., Opened]) -> None:
    opened = notebook(
        "print(6 * 7)",
        "from IPython.display import HTML\n"
        'HTML(\'<img src="http://127.0.0.2:1234/x.png" onerror="window.ran = true">\')',
    )
    opened.page.wait_for_function("window.ran === true")
    assert "42" in opened.page.inner_text(".jp-OutputArea")
    assert set(opened.beyond_the_server()) == {"http://127.0.0.2:1234/x.png"}
    assert any("ERR_" in error for error in opened.errors)
    opened.set_dark(dark=True)
    assert opened.save()["cells"][0]["outputs"][0]["text"] == "42\n"
