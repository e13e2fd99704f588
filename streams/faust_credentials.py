"""Kafka security options in Faust's form. The clients that Faust itself starts need them."""

from __future__ import annotations

import faust
from faust.auth import Credentials

from broker.security import security_options
from schema.settings import Settings


def faust_credentials(settings: Settings) -> Credentials | None:
    """Return the login and TLS context of `settings` as Faust credentials; None for PLAINTEXT.

    Raises:
        ConfigError: the security settings are incomplete or contradict one another.
    """
    options = security_options(settings)
    context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)
