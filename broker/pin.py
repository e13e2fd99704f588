"""Pin Kafka's jars again: `python -m broker.pin` resolves them with jgo and rewrites `kafka-jars.json`.

For maintainers, after a change of `KAFKA_VERSION`. Kafka is resolved alone, because the resolver mixes versions of
kafka-clients if the logging binding is in the same endpoint.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from broker.artifacts import KAFKA_GROUP, KAFKA_VERSION, MANIFEST, check_versions

LOG4J_GROUP = "org.apache.logging.log4j"


def pin(manifest: Path = MANIFEST) -> int:
    """Resolve, download and check the jars, and write the manifest; returns the number of jars.

    Raises:
        BrokerArtifactError: the resolver returned Kafka jars of several versions.
    """
    import jgo
    from jgo.maven import MavenContext

    kafka = jgo.resolve(f"{KAFKA_GROUP}:kafka_2.13:{KAFKA_VERSION}")
    coordinates = [(jar.groupId, jar.artifactId, jar.version) for jar in kafka]
    check_versions(coordinates)
    log4j_version = next(version for group, artifact, version in coordinates if artifact == "log4j-core")
    # The binding of slf4j 1.7, through which Kafka logs, to log4j2.
    coordinates.append((LOG4J_GROUP, "log4j-slf4j-impl", log4j_version))
    entries = []
    with tempfile.TemporaryDirectory() as staging:
        context = MavenContext(repo_cache=Path(staging))
        for group, artifact, version in sorted(coordinates):
            data = context.project(group, artifact).at_version(version).artifact().resolve().read_bytes()
            entries.append(
                {
                    "coordinate": f"{group}:{artifact}:{version}",
                    "bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
            )
    manifest.write_text(json.dumps({"jars": entries}, indent=2) + "\n")
    return len(entries)


if __name__ == "__main__":
    print(f"{pin()} jars pinned in {MANIFEST}")
