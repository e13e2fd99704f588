"""A real Kafka with one listener for each kind of login and TLS, and their certificates and users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from broker import embedded, ports
from broker.clients import connect
from broker.kraft import HOST, server_properties
from schema.settings import Settings, load_settings

USER = "miller"
PASSWORD = "grist-of-the-mill"  # noqa: S105 - not a real password
KEY_PASSWORD = "sesame, öffne dich"  # noqa: S105
# Listener name -> security protocol.
LISTENERS = {
    "LOGIN": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "BOTH": "SASL_SSL",
    "STRANGE": "SSL",
    "PLAINONLY": "SASL_PLAINTEXT",
}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True)
class SecuredKafka:
    """Addresses by listener name, and the folder with `ca.pem`, `client.pem`, `client.key` and `encrypted.key`."""

    servers: Mapping[str, str]
    folder: Path

    def settings(self, listener: str, **overrides: object) -> Settings:
        """Return settings that the listener accepts, changed by `overrides`."""
        protocol = LISTENERS.get(listener, "PLAINTEXT")
        fitting: dict[str, object] = {"bootstrap_servers": self.servers[listener], "security_protocol": protocol}
        if protocol.startswith("SASL"):
            fitting |= {"sasl_mechanism": "PLAIN", "sasl_username": USER, "sasl_password": PASSWORD}
        if protocol.endswith("SSL"):
            fitting |= {"ssl_cafile": self.folder / "ca.pem"}
        if listener == "MUTUAL":
            fitting |= {"ssl_certfile": self.folder / "client.pem", "ssl_keyfile": self.folder / "encrypted.key"}
            fitting |= {"ssl_key_password": KEY_PASSWORD}
        return load_settings(**fitting | overrides)


@contextmanager
def secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    """Run the Kafka until the context ends."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    _store(authority.issue_cert(HOST), folder / "broker.pem")
    _store(authority.issue_cert("elsewhere.example"), folder / "elsewhere.pem")
    client = authority.issue_cert("client.example")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    (folder / "client.key").write_bytes(_key(client, serialization.NoEncryption()))
    (folder / "encrypted.key").write_bytes(
        _key(client, serialization.BestAvailableEncryption(KEY_PASSWORD.encode("utf-8")))
    )
    numbers = {name: ports.free_port(HOST) for name in LISTENERS}

    def with_more_listeners(*arguments: object) -> dict[str, str]:
        properties = server_properties(*arguments)  # type: ignore[arg-type]
        addresses = ",".join(f"{name}://{HOST}:{number}" for name, number in numbers.items())
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items())
        for name, more in (("listeners", addresses), ("advertised.listeners", addresses)):
            properties[name] += f",{more}"
        properties["listener.security.protocol.map"] += f",{protocols}"
        return properties | _security_properties(folder)

    own = load_settings(data_dir=folder / "kafka", broker_port=ports.free_port(HOST), broker_heap_mb=256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "server_properties", with_more_listeners)
        plain = embedded.start(own).servers
    assert plain is not None
    try:
        with closing(connect(load_settings(bootstrap_servers=plain)).admin()) as admin:
            # One request for each mechanism, because Kafka refuses a request that names a user twice.
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                refused = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, mechanism, PASSWORD)])
                assert refused == {USER: None}
        yield SecuredKafka({"OPEN": plain} | {name: f"{HOST}:{number}" for name, number in numbers.items()}, folder)
    finally:
        embedded.stop(own)


def _security_properties(folder: Path) -> dict[str, str]:
    module = "org.apache.kafka.common.security"
    properties = {"sasl.enabled.mechanisms": ",".join(MECHANISMS)}
    for name, protocol in LISTENERS.items():
        prefix = f"listener.name.{name.lower()}"
        if protocol.startswith("SASL"):
            properties[f"{prefix}.plain.sasl.jaas.config"] = (
                f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            )
            for mechanism in MECHANISMS[1:]:
                properties[f"{prefix}.{mechanism.lower()}.sasl.jaas.config"] = (
                    f"{module}.scram.ScramLoginModule required;"
                )
        if protocol.endswith("SSL"):
            store = "elsewhere.pem" if name == "STRANGE" else "broker.pem"
            properties[f"{prefix}.ssl.keystore.type"] = "PEM"
            properties[f"{prefix}.ssl.keystore.location"] = str(folder / store)
    properties["listener.name.plainonly.sasl.enabled.mechanisms"] = "PLAIN"
    properties["listener.name.mutual.ssl.client.auth"] = "required"
    properties["listener.name.mutual.ssl.truststore.type"] = "PEM"
    properties["listener.name.mutual.ssl.truststore.location"] = str(folder / "ca.pem")
    return properties


def _store(certificate: trustme.LeafCert, path: Path) -> None:
    """Write a PEM key store in the form that Kafka reads: the key in PKCS 8, then the certificates."""
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    path.write_bytes(_key(certificate, serialization.NoEncryption()) + chain)


def _key(certificate: trustme.LeafCert, encryption: serialization.KeySerializationEncryption) -> bytes:
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
