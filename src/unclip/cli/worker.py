"""`unclip worker`: draws what a server's queue holds, on this or another machine."""

import argparse

from unclip.cli import options, serve_options


def add(verbs) -> None:
    parser = options.verb(
        verbs, "worker", "draw the jobs of a server's queue, on as many machines as there are"
    )
    serve_options.add(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    settings = serve_options.settings_of(arguments, workers=0)
    from unclip.serve.logs import configure_logging
    from unclip.serve.service import check_places
    from unclip.serve.worker_process import run_worker

    check_places(settings)
    configure_logging(debug=arguments.debug)
    run_worker(settings)
