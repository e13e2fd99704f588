"""Security options of Kafka clients in Faust's form, for the clients that Faust starts by itself."""

from __future__ import annotations

import faust
from faust.auth import Credentials

from broker.security import security_options
from schema.settings import Settings


def faust_credentials(settings: Settings) -> Credentials | None:
    """Return the login and TLS context that `broker.security` makes of `settings`; None for PLAINTEXT.

    Raises:
        ConfigError: as `broker.security.security_options`.
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
