"""docker-compose.yml and the Dockerfile agree with Kafka's version and settings, the commands and the packages."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from broker.artifacts import KAFKA_VERSION
from broker.kraft import KraftLayout, server_properties
from schema.settings import Settings

ROOT = Path(__file__).parents[1]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# Properties that differ between a container and a process on 127.0.0.1: addresses, and the place of the data.
OF_THE_CONTAINER = {
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "inter.broker.listener.name",
    "controller.quorum.voters",
    "log.dirs",
    "heap.opts",
}


def commands() -> list[list[str]]:
    """Return every `feedmill ...` in the services' commands and health checks, and in the Dockerfile."""
    parts = [part for service in SERVICES.values() for part in (service.get("command"), service["healthcheck"]["test"])]
    parts += [re.findall(r'"([^"]+)"', line) for line in dockerfile_lines("CMD")]
    words = [[word for word in each if word != "CMD"] for each in parts if each]
    return [each[1:] for each in words if each[0] == "feedmill"]


def dockerfile_lines(instruction: str) -> list[str]:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [line.removeprefix(f"{instruction} ") for line in lines if line.startswith(f"{instruction} ")]


def test_kafka_has_the_version_of_the_embedded_broker() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_kafka_has_the_settings_of_the_embedded_broker(tmp_path: Path) -> None:
    composed = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in SERVICES["kafka"]["environment"].items()
        if name.startswith("KAFKA_")
    }
    embedded = server_properties(Settings(data_dir=tmp_path), KraftLayout(tmp_path), 9092, 9093)
    assert {name: value for name, value in composed.items() if name not in OF_THE_CONTAINER} == {
        name: value for name, value in embedded.items() if name not in OF_THE_CONTAINER
    }


def test_worker_and_coverage_run_and_only_the_worker_scales() -> None:
    assert SERVICES["worker"]["command"] == ["feedmill", "worker"]
    assert SERVICES["coverage"]["command"] == ["feedmill", "coverage", "serve"]
    for fixed in ("container_name", "ports", "volumes", "hostname"):
        assert fixed not in SERVICES["worker"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_exists(words: list[str]) -> None:
    from feedmill.cli import app

    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0, done.output
    for option in [word for word in words if word.startswith("--")]:
        assert option in done.output
    # A command with subcommands shows its own help for an unknown subcommand, so the usage line must name all words.
    assert " ".join(word for word in words if not word.startswith("-")) in done.output.replace("\n", " ")


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_a_health_check_and_is_restarted(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:")


def test_data_are_in_named_volumes() -> None:
    for name in ("kafka", "coverage"):
        volumes = [volume.partition(":")[0] for volume in SERVICES[name]["volumes"]]
        assert volumes
        assert set(volumes) <= set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", ["worker", "coverage"])
def test_the_environment_of_a_service_holds_only_settings(name: str) -> None:
    given = SERVICES[name]["environment"]
    known = {f"FEEDMILL_{field.upper()}" for field in Settings.model_fields}
    assert set(given) <= known
    # Compose inserts the user's own token, and refuses to start without one.
    given = {key: "t" * 16 if value.startswith("${FEEDMILL_TOKEN:?") else value for key, value in given.items()}
    Settings(**{key.removeprefix("FEEDMILL_").lower(): value for key, value in given.items()})


@pytest.mark.parametrize("name", ["worker", "coverage"])
def test_service_beyond_the_loopback_has_a_token(name: str) -> None:
    given = SERVICES[name]["environment"]
    assert ("FEEDMILL_TOKEN" in given) == ("FEEDMILL_COVERAGE_HOST" in given)


def test_services_wait_for_kafka_and_use_an_existing_listener() -> None:
    listeners = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    for name in ("worker", "coverage"):
        assert f"//{SERVICES[name]['environment']['FEEDMILL_BOOTSTRAP_SERVERS']}" in listeners
        assert SERVICES[name]["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_image_has_every_package_and_file_that_the_build_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = [line.split() for line in dockerfile_lines("COPY")]
    assert {words[0] for words in copied if words[0] == words[-1]} == packages
    files = {word for words in copied for word in words[:-1]} - packages
    assert {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"} <= files


def test_image_is_built_with_the_uv_that_the_makefile_uses() -> None:
    versions = {
        name: set(re.findall(r"uv==([0-9.]+)", (ROOT / name).read_text())) for name in ("Makefile", "Dockerfile")
    }
    for (_, one), (_, other) in pairwise(versions.items()):
        assert one == other
        assert len(one) == 1
