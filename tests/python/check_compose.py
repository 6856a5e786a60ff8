"""Holds a compose file against the published schema of compose files, and itself together: what one part names, another
has. Prints the environment of the service boathouse as JSON.
  check_compose.py SCHEMA FILE
"""

import json
import pathlib
import sys

import jsonschema
import yaml

schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
path = pathlib.Path(sys.argv[2])
compose = yaml.safe_load(path.read_text())
problems = list(jsonschema.Draft7Validator(schema).iter_errors(compose))
assert not problems, "\n".join(f"{problem.json_path}: {problem.message}" for problem in problems)

services = compose["services"]
assert set(services) == {"kafka", "clickhouse", "boathouse", "producer", "prometheus", "grafana"}, sorted(services)
published = set()
named = set()
for name, service in services.items():
    assert "image" in service and not service["image"].endswith(":latest"), f"{name}: an image with its version"
    for port in service.get("ports", []):
        host, outside, _ = port.split(":")
        assert host == "127.0.0.1", f"{name}: {port} is reachable from other machines"
        assert outside not in published, f"{name}: {outside} is published twice"
        published.add(outside)
    for other in service.get("depends_on", {}):
        assert other in services, f"{name} waits for {other}, which is not there"
        if service["depends_on"][other]["condition"] == "service_healthy":
            assert "healthcheck" in services[other], f"{other} has no health check"
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (path.parent / source).exists(), f"{name}: {source} is not there"
        else:
            named.add(source)
    for key, value in (service.get("environment") or {}).items():
        if "PASSWORD" in key:
            assert str(value).startswith("${") and ":?" in str(value), f"{name}: {key} has a default"
assert named == set(compose["volumes"]), f"volumes: {named} used, {set(compose['volumes'])} declared"
assert published == {"9092", "8123", "9000", "8082", "9464", "9090", "3000"}, f"the ports of the guide: {published}"
json.dump(services["boathouse"]["environment"], sys.stdout)
