"""`unclip serve`: the image server."""

import argparse

from unclip.cli import access_options, console, options, serve_options


def add(verbs) -> None:
    parser = options.verb(
        verbs, "serve", "serve pictures over HTTP: a page, an API, and a queue that survives"
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=port, default=8188, metavar="N", help="port; 0 takes a free one (default: 8188)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    serve_options.add(parser)
    parser.add_argument(
        "--workers",
        type=options.whole,
        default=1,
        metavar="N",
        help="worker processes; 0 for `unclip worker` elsewhere alone (default: 1)",
    )
    parser.add_argument(
        "--ray",
        action="store_true",
        help="deploy on Ray Serve: the cluster of RAY_ADDRESS, or this machine; --workers is the most that it starts",
    )
    parser.add_argument(
        "--max-queue",
        type=options.positive,
        default=1000,
        metavar="N",
        help="pictures that may wait (default: 1000)",
    )
    parser.add_argument(
        "--drain",
        type=options.number,
        default=30.0,
        metavar="SECONDS",
        help="time that running pictures have to finish after SIGTERM (default: 30)",
    )
    parser.add_argument(
        "--keep-jobs",
        type=options.number,
        default=90.0,
        metavar="DAYS",
        help="days until records of jobs that are over are removed; their pictures stay (default: 90)",
    )
    parser.add_argument("--log-prompts", action="store_true", help="log prompts, which are personal data")
    access_options.add(parser)
    parser.set_defaults(run=run)


def port(text: str) -> int:
    """A port's number."""
    value = options.whole(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{value} is no port: give 0 to 65535")
    return value


def run(arguments: argparse.Namespace) -> None:
    settings = serve_options.settings_of(
        arguments,
        workers=arguments.workers,
        max_queue=arguments.max_queue,
        drain=arguments.drain,
        keep_days=arguments.keep_jobs,
        log_prompts=arguments.log_prompts,
    )
    from unclip.serve.front import front_app
    from unclip.serve.logs import configure_logging
    from unclip.serve.server import serve, shown_host
    from unclip.serve.service import check_places

    def announce(port: int) -> None:
        url = f"http://{shown_host(arguments.host)}:{port}"
        console.result(url)
        if arguments.open:
            import webbrowser

            webbrowser.open(url)

    check_places(settings)
    configure_logging(debug=arguments.debug, prompts=arguments.log_prompts)
    if arguments.ray:
        serve_options.require_extra("ray", ("ray", "fastapi"))
        from unclip.serve.ray_cluster import serve_on_ray

        access = access_options.access_of(arguments)
        serve_on_ray(
            settings,
            lambda: front_app(settings, access),
            host=arguments.host,
            port=arguments.port,
            most_workers=max(1, arguments.workers),
            on_start=announce,
        )
        return
    app = front_app(settings, access_options.access_of(arguments))
    serve(app, settings, host=arguments.host, port=arguments.port, on_start=announce)
