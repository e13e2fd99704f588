"""Security options of Kafka clients: SASL logins and TLS contexts, made from the settings.

The options have the same names in kafka-python and aiokafka. `streams.faust_credentials` gives the same options to
Faust.
"""

from __future__ import annotations

import ssl
from typing import Any

from schema.errors import ConfigError
from schema.settings import Settings

# OpenSSL's reason if the certificate and the key were read but do not belong together.
_OF_ANOTHER_KEY = "KEY_VALUES_MISMATCH"


def security_options(settings: Settings) -> dict[str, Any]:
    """Return `security_protocol`, with the SASL login and the TLS context that the protocol needs.

    Raises:
        ConfigError: a certificate or a key cannot be loaded, or the key's password is missing or wrong.
    """
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.startswith("SASL"):
        options.update(_sasl(settings))
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = ssl_context(settings)
    return options


def _sasl(settings: Settings) -> dict[str, Any]:
    assert settings.sasl_password is not None  # noqa: S101  settings are validated whole
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }


def ssl_context(settings: Settings) -> ssl.SSLContext:
    """Return a context that checks the broker's certificate and host name, and sends this client's certificate if set.

    Raises:
        ConfigError: a certificate or a key cannot be loaded, or the key's password is missing or wrong.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"certificates cannot be loaded from {settings.ssl_cafile} ({_words(error)}): set FEEDMILL_SSL_CAFILE to a "
            "PEM file of the authority that signed the broker's certificate"
        ) from error
    if settings.ssl_certfile is not None:
        _load_own_certificate(context, settings)
    return context


def _load_own_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    keyfile = settings.ssl_keyfile or settings.ssl_certfile
    asked = False

    def password() -> str:
        # OpenSSL calls this for an encrypted key only. Without a callback it would ask on the terminal.
        nonlocal asked
        asked = True
        if settings.ssl_key_password is None:
            raise ConfigError(f"the private key in {keyfile} is encrypted: set FEEDMILL_SSL_KEY_PASSWORD")
        return settings.ssl_key_password.get_secret_value()

    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)  # type: ignore[arg-type]
    except (OSError, ValueError) as error:  # ValueError: the password is too long
        if asked and getattr(error, "reason", None) != _OF_ANOTHER_KEY:
            # Not chained, so that `--debug` prints nothing about the password.
            raise ConfigError(
                f"the private key in {keyfile} cannot be decrypted with the given password: "
                "correct FEEDMILL_SSL_KEY_PASSWORD"
            ) from None
        raise ConfigError(
            f"the client's certificate {settings.ssl_certfile} and its key {keyfile} cannot be loaded "
            f"({_words(error)}): correct FEEDMILL_SSL_CERTFILE and FEEDMILL_SSL_KEYFILE"
        ) from error


def _words(error: Exception) -> str:
    """Return the reason that OpenSSL or the system gives, without the path that the caller names itself."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
