"""Every part of Feedmill over SASL and TLS, against a real Kafka, and the errors that refused users see."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from broker.clients import Connection, connect
from broker.topics import delete_topics, list_topics
from consumers.feed import Feed
from feedmill.services import start
from producers.reduction.run import ReductionRun
from producers.run import produce
from schema.errors import BrokerUnavailableError, ConfigError
from schema.settings import Settings
from streams.coverage.client import open_coverage
from streams.drain import drain
from tests.integration import workers
from tests.secured_kafka import KEY_PASSWORD, PASSWORD, SecuredKafka, secured_kafka

ROWS = 300
_LIMIT_S = 120.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as running:
        yield running


def refused(settings: Settings) -> str:
    """Connect without success; return the error line, which must come within ten seconds and hold no secret."""
    began = time.monotonic()
    with pytest.raises((BrokerUnavailableError, ConfigError)) as caught:
        connect(settings)
    assert time.monotonic() - began < 10
    line = str(caught.value)
    assert "\n" not in line
    for secret in (settings.sasl_password, settings.ssl_key_password):
        assert not secret or secret.get_secret_value() not in line
    return line


@pytest.mark.parametrize(
    ("listener", "login"),
    [
        ("LOGIN", {"sasl_mechanism": "PLAIN"}),
        ("LOGIN", {"sasl_mechanism": "SCRAM-SHA-256"}),
        ("LOGIN", {"sasl_mechanism": "SCRAM-SHA-512"}),
        ("BOTH", {"sasl_mechanism": "SCRAM-SHA-512"}),
        ("MUTUAL", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value.values()) or "encrypted-key",
)
def test_every_part_runs(
    kafka: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: str, login: dict[str, str]
) -> None:
    # Paths as a user gives them: relative to the folder that the command is started in.
    monkeypatch.chdir(kafka.folder)
    near = {"ssl_cafile": "ca.pem"} if listener != "LOGIN" else {}
    if listener == "MUTUAL":
        near |= {"ssl_certfile": "client.pem", "ssl_keyfile": "encrypted.key"}
    settings = kafka.settings(
        listener, namespace=f"test-{uuid.uuid4().hex[:12]}", data_dir=tmp_path, partitions=2, **near, **login
    )
    connection = connect(settings)
    log = tmp_path / "worker.log"
    with ExitStack() as stack:
        stack.callback(lambda: delete_topics(connection, list_topics(connection)))
        service = start(settings, connection.servers, "coverage", ["coverage", "serve"])
        stack.callback(service.stop)
        worker = stack.enter_context(workers.worker(settings, log))
        produce(connection, ReductionRun(count=ROWS, seed=1, workers=1))
        drain(connection, "reduction", _LIMIT_S)
        with open_coverage(connection) as coverage:
            assert coverage.report("reduction")["rows_in"] == ROWS
        service.check()
        batch = next(iter(Feed(settings, "reduction", batch_size=8)))
        assert batch.tokens.shape[0] == 8
        for process in (worker.pid, service.process.pid):
            command = " ".join(psutil.Process(process).cmdline())
            assert PASSWORD not in command
            assert KEY_PASSWORD not in command
    assert PASSWORD not in log.read_text() + service.log_file.read_text()


@pytest.mark.parametrize(
    ("listener", "changes", "advice"),
    [
        ("TLS", {"security_protocol": "PLAINTEXT"}, "speaks TLS: set FEEDMILL_SECURITY_PROTOCOL=SSL"),
        ("MUTUAL", {"security_protocol": "PLAINTEXT"}, "speaks TLS: set FEEDMILL_SECURITY_PROTOCOL=SSL"),
        ("BOTH", {"security_protocol": "SASL_PLAINTEXT"}, "speaks TLS: set FEEDMILL_SECURITY_PROTOCOL=SASL_SSL"),
        ("OPEN", {"security_protocol": "SSL"}, "not speak TLS: set FEEDMILL_SECURITY_PROTOCOL=PLAINTEXT"),
        ("LOGIN", {"security_protocol": "SASL_SSL"}, "not speak TLS: set FEEDMILL_SECURITY_PROTOCOL=SASL_PLAINTEXT"),
        ("LOGIN", {"security_protocol": "PLAINTEXT"}, "asks for a login: set FEEDMILL_SECURITY_PROTOCOL=SASL_PLAIN"),
        ("BOTH", {"security_protocol": "SSL"}, "asks for a login: set FEEDMILL_SECURITY_PROTOCOL=SASL_SSL"),
        ("PLAINONLY", {"sasl_mechanism": "SCRAM-SHA-256"}, "FEEDMILL_SASL_MECHANISM to one of PLAIN"),
        ("LOGIN", {"sasl_password": "chaff-of-the-mill"}, "FEEDMILL_SASL_PASSWORD"),
        ("LOGIN", {"sasl_username": "nobody"}, "FEEDMILL_SASL_USERNAME"),
        ("BOTH", {"sasl_mechanism": "SCRAM-SHA-256", "sasl_password": "chaff-of-the-mill"}, "FEEDMILL_SASL_PASSWORD"),
        ("STRANGE", {}, "certificate is not for 127.0.0.1"),
        ("TLS", {"ssl_cafile": None}, "is not trusted"),
        ("TLS", {"ssl_cafile": "other-ca.pem"}, "FEEDMILL_SSL_CAFILE"),
        ("MUTUAL", {"ssl_certfile": None, "ssl_keyfile": None}, "FEEDMILL_SSL_CERTFILE"),
        ("TLS", {"ssl_cafile": "missing.pem"}, "missing.pem"),
        ("TLS", {"ssl_cafile": "client.key"}, "FEEDMILL_SSL_CAFILE"),
        ("MUTUAL", {"ssl_keyfile": "client.pem"}, "FEEDMILL_SSL_KEYFILE"),
        ("MUTUAL", {"ssl_certfile": "ca.pem"}, "FEEDMILL_SSL_CERTFILE"),
        ("MUTUAL", {"ssl_key_password": None}, "is encrypted: set FEEDMILL_SSL_KEY_PASSWORD"),
        ("MUTUAL", {"ssl_key_password": "wrong"}, "correct FEEDMILL_SSL_KEY_PASSWORD"),
        ("MUTUAL", {"ssl_key_password": ""}, "correct FEEDMILL_SSL_KEY_PASSWORD"),
        ("MUTUAL", {"ssl_key_password": "long" * 1000}, "correct FEEDMILL_SSL_KEY_PASSWORD"),
    ],
)
def test_refusal_names_the_setting_to_change(
    kafka: SecuredKafka, monkeypatch: pytest.MonkeyPatch, listener: str, changes: dict[str, str | None], advice: str
) -> None:
    monkeypatch.chdir(kafka.folder)
    assert advice in refused(kafka.settings(listener, **changes))


def test_port_with_a_login_refuses_a_client_of_no_login_and_the_other_way_round(kafka: SecuredKafka) -> None:
    assert "FEEDMILL_SASL_USERNAME" in refused(kafka.settings("LOGIN", security_protocol="PLAINTEXT"))
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "miller", "sasl_password": PASSWORD}
    line = refused(kafka.settings("OPEN", security_protocol="SASL_PLAINTEXT", **login))
    assert "accepts no login: set FEEDMILL_SECURITY_PROTOCOL=PLAINTEXT" in line


def test_encrypted_key_is_never_asked_for_on_the_terminal(kafka: SecuredKafka, tmp_path: Path) -> None:
    settings = kafka.settings("MUTUAL", ssl_key_password=None, data_dir=tmp_path)
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "feedmill", "topics"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=settings.environment(kafka.servers["MUTUAL"]),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        assert process.wait(60) == 1
        shown = os.read(terminal, 10_000).decode()
    finally:
        process.kill()
        os.close(terminal)
    assert "FEEDMILL_SSL_KEY_PASSWORD" in shown
    assert "Enter PEM" not in shown
    assert "Traceback" not in shown


def test_worker_with_debug_logging_logs_no_secret(kafka: SecuredKafka, tmp_path: Path) -> None:
    settings = kafka.settings("BOTH", namespace=f"test-{uuid.uuid4().hex[:12]}", data_dir=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "feedmill.child_process", "--debug", "worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=settings.environment(kafka.servers["BOTH"]),
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        log = ""
        while "refining" not in log:
            line = process.stdout.readline()
            assert line, log
            log += line
        time.sleep(2)
        process.stdin.close()
        log += process.stdout.read()
        assert process.wait(60) == 0, log
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        delete_topics(connect(settings), list_topics(connect(settings)))
    assert PASSWORD not in log


def test_connection_over_tls_logs_no_secret(kafka: SecuredKafka) -> None:
    settings = kafka.settings("MUTUAL")
    connection = Connection(settings, kafka.servers["MUTUAL"])
    assert KEY_PASSWORD not in repr(connection) + repr(settings) + settings.model_dump_json()
