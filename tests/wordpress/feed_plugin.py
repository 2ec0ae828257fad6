"""The companion plugin in a test network."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.wordpress.network import WordPressNetwork

PLUGIN = Path(__file__).parents[2] / "wordpress" / "all-sites-cron-feed.php"
PATH = "wp-json/all-sites-cron-feed/v1/sites"
TOKEN = "a token of the tests' own"
CONSTANT = f'define( "ALL_SITES_CRON_FEED_TOKEN", "{TOKEN}" );'


@contextmanager
def installed(network: WordPressNetwork, php: str) -> Iterator[None]:
    """The plugin and these lines of configuration; under a new name, as PHP keeps compiled files by name for 2 s."""
    configuration = network.mu_plugins / f"configuration-{uuid.uuid4().hex}.php"
    plugin = network.mu_plugins / PLUGIN.name
    configuration.write_text(f"<?php {php}\n")
    shutil.copy(PLUGIN, plugin)
    try:
        yield
    finally:
        configuration.unlink()
        plugin.unlink()
