"""Find out why a broker refuses a client (TLS, login, certificate), and name the setting to change.

`why_refused` takes settings and an address at which a server listens. It returns one clause, or None if the cause is
not certain.
"""

from __future__ import annotations

import socket
import ssl
import struct

from broker import probe
from broker.security import ssl_context
from schema.settings import Settings

# Limit of one question: a command must report within ten seconds that the broker is down.
_PROBE_TIMEOUT_S = 1.0
_SASL_HANDSHAKE = 17
_UNSUPPORTED_MECHANISM = 33
_ILLEGAL_SASL_STATE = 34
_NAME_MAX_CHARACTERS = 40


def why_refused(settings: Settings, host: str, port: int) -> str | None:
    """Return why the Kafka at `host:port` refuses a client with these settings, or None if the cause is not certain.

    Raises:
        ConfigError: the client's own certificate cannot be loaded.
    """
    protocol = settings.security_protocol
    login = protocol.startswith("SASL")
    if not protocol.endswith("SSL"):
        if probe.answers(host, port, _PROBE_TIMEOUT_S):
            return _ask_for_login(settings, host, port, None)
        if probe.speaks_tls(host, port, _PROBE_TIMEOUT_S):
            return f"the port speaks TLS: set FEEDMILL_SECURITY_PROTOCOL={'SASL_SSL' if login else 'SSL'}"
        return None
    if not probe.speaks_tls(host, port, _PROBE_TIMEOUT_S):
        if probe.answers(host, port, _PROBE_TIMEOUT_S):
            plain = "SASL_PLAINTEXT" if login else "PLAINTEXT"
            return f"the port does not speak TLS: set FEEDMILL_SECURITY_PROTOCOL={plain}"
        return None
    return _ask_for_login(settings, host, port, ssl_context(settings))


def _ask_for_login(settings: Settings, host: str, port: int, context: ssl.SSLContext | None) -> str | None:
    """Ask the port for the login of the settings, over TLS if `context` is given; return why it is refused, or None."""
    mechanism = settings.sasl_mechanism or "PLAIN"
    try:
        with socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S) as connection:
            body = struct.pack(">h", len(mechanism)) + mechanism.encode()
            if context is None:
                answer = probe.ask(connection, _SASL_HANDSHAKE, 1, body)
            else:
                with context.wrap_socket(connection, server_hostname=host) as secured:
                    answer = probe.ask(secured, _SASL_HANDSHAKE, 1, body)
    except ssl.SSLError as error:
        return _tls_reason(settings, host, error)
    except OSError:
        return None
    return _login_reason(settings, answer)


def _tls_reason(settings: Settings, host: str, error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = error.verify_message.rstrip(".")
        if "match" in fault.lower():
            return f"the broker's certificate is not for {host} ({fault}): correct FEEDMILL_BOOTSTRAP_SERVERS"
        return f"the broker's certificate is not trusted ({fault}): correct FEEDMILL_SSL_CAFILE"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if settings.ssl_certfile is None and "alert" in reason:
        return (
            f"the broker refuses a client without a certificate of its own ({reason}): set FEEDMILL_SSL_CERTFILE and "
            "FEEDMILL_SSL_KEYFILE"
        )
    if settings.ssl_certfile is not None and "alert" in reason:
        return f"the broker refuses this client's certificate ({reason}): correct FEEDMILL_SSL_CERTFILE"
    return f"no TLS connection can be made ({reason}): check FEEDMILL_SECURITY_PROTOCOL and FEEDMILL_SSL_..."


def _login_reason(settings: Settings, answer: bytes) -> str | None:
    (status,) = struct.unpack_from(">h", answer)
    tls = settings.security_protocol.endswith("SSL")
    if not settings.security_protocol.startswith("SASL"):
        if status == _ILLEGAL_SASL_STATE:
            return None
        return (
            f"the port asks for a login: set FEEDMILL_SECURITY_PROTOCOL={'SASL_SSL' if tls else 'SASL_PLAINTEXT'}, "
            f"FEEDMILL_SASL_MECHANISM ({_offered(answer)}), FEEDMILL_SASL_USERNAME and FEEDMILL_SASL_PASSWORD"
        )
    if status == _ILLEGAL_SASL_STATE:
        return f"the port accepts no login: set FEEDMILL_SECURITY_PROTOCOL={'SSL' if tls else 'PLAINTEXT'}"
    if status == _UNSUPPORTED_MECHANISM:
        return (
            f"the broker does not offer {settings.sasl_mechanism}: set FEEDMILL_SASL_MECHANISM to one of "
            f"{_offered(answer)}"
        )
    return None


def _offered(answer: bytes) -> str:
    """Return the mechanisms in a SaslHandshake answer: int16 status, int32 count, strings."""
    names: list[str] = []
    at = 6
    # The answer may not be Kafka's, so its own length limits the loop, not a number in it.
    while at + 2 <= len(answer):
        (size,) = struct.unpack_from(">h", answer, at)
        name = answer[at + 2 : at + 2 + max(size, 0)].decode("ascii", "replace")
        names.append("".join(letter for letter in name if letter.isprintable())[:_NAME_MAX_CHARACTERS])
        at += 2 + max(size, 0)
    return ", ".join(sorted(names)) or "one that it offers"
