"""``ui``"""

from __future__ import annotations

import argparse
import os

from lora_trainer import demo
from lora_trainer.cli.terminal import say
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.ui.access import Access, is_loopback, read_hosts


def run_ui(args: argparse.Namespace) -> None:
    """Serve the tab as a page of its own until Ctrl-C."""
    checkpoint = args.checkpoint or demo.CHECKPOINT
    if not checkpoint.is_file():
        raise FileError(f"There is no checkpoint {checkpoint}; give another file with --checkpoint.")
    access = Access(exposed=not is_loopback(args.host), open=args.without_login, hosts=read_hosts(args.host))
    if access.closed:
        raise ConfigError(
            f"The page has no login, so anyone who can reach {args.host} could train and read folders; "
            "add --without-login if you want that."
        )
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is asked of any server
    try:
        from lora_trainer.ui.standalone import create_app, serve
    except ImportError as error:
        raise ConfigError(
            f"The page needs gradio 3.41 or 4 ({error.name} is missing or too new): in this program's folder, run make "
            "ui, which sets up all it needs, or pip install '.[ui]'."
        ) from error
    app = create_app(checkpoint, args.lora_dir, args.output, access=access)
    serve(app, args.host, args.port, lambda url: say(f"{checkpoint.name}: open {url} in a browser (Ctrl-C ends it)"))
