"""Options that say who may reach a server."""

import argparse
from typing import TYPE_CHECKING

from unclip.cli import options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.serve.front import Access


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("access")
    group.add_argument(
        "--api-keys",
        metavar="FILE",
        help="file of API keys, one NAME:KEY a line; UNCLIP_API_KEYS has further ones. Without any, no key is needed",
    )
    group.add_argument(
        "--insecure-no-auth",
        action="store_true",
        help="listen on a public address though there is no API key",
    )
    group.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further host name that the server answers to; repeatable",
    )
    group.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="URL",
        help="origin of another site whose pages may use the server, such as https://example.org; repeatable",
    )
    group.add_argument(
        "--public-url", metavar="URL", help="address that clients know the server by, such as that of a proxy"
    )
    group.add_argument(
        "--rate",
        type=options.number,
        metavar="N",
        help="requests for pictures a minute that each key has, or each address where no key is needed (default: no limit)",
    )
    group.add_argument(
        "--alias",
        action="append",
        default=[],
        type=alias,
        metavar="NAME[=MODEL]",
        help="further name of a model for clients of OpenAI, such as gpt-image-1; repeatable (always there: dall-e-2)",
    )
    group.add_argument(
        "--strict-openai",
        action="store_true",
        help="refuse what dall-e-2 refused: extensions, other formats than PNG, pictures of 4 MB and more",
    )


def alias(text: str) -> tuple[str, str]:
    """A model's further name, and the model; empty for the default one."""
    name, equals, model = text.partition("=")
    if not name or (equals and not model):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME or NAME=MODEL")
    return name, model


def access_of(arguments: argparse.Namespace) -> "Access":
    """Access of the options. Raises `UsageError` for a rate of no requests."""
    from unclip.serve.front import Access

    if arguments.rate is not None and arguments.rate <= 0:
        raise UsageError(f"--rate {arguments.rate:g} lets nobody in: give a number above 0")
    return Access(
        host=arguments.host,
        key_file=arguments.api_keys,
        insecure=arguments.insecure_no_auth,
        hosts=tuple(arguments.allowed_host),
        origins=tuple(arguments.allowed_origin),
        public_url=arguments.public_url,
        rate=arguments.rate,
        aliases=dict(arguments.alias),
        strict=arguments.strict_openai,
    )
