"""Holds a compose file against the published schema of compose files, and itself together: what one part names, another
has. Prints the environment of the service boathouse as JSON. FACTS are what the program and the image say of themselves.
  check_compose.py SCHEMA FILE FACTS
"""

import json
import pathlib
import sys
from xml.etree import ElementTree

import jsonschema
import yaml

schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
path = pathlib.Path(sys.argv[2])
facts = json.loads(pathlib.Path(sys.argv[3]).read_text())
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

# What is written must outlive its container, and the rest of the daemon's file system cannot be written.
def kept(service):
    return {volume.split(":")[1] for volume in service["volumes"] if not volume.startswith(".")}


daemon = services["boathouse"]
assert daemon["read_only"] and kept(daemon) == {facts["data_dir"], facts["lakehouse"]}, kept(daemon)
assert daemon["stop_grace_period"].endswith("s") and int(daemon["stop_grace_period"][:-1]) > facts["deadline_s"]
assert services["kafka"]["environment"]["KAFKA_LOG_DIRS"] in kept(services["kafka"]), "topics are gone with the container"
for listener in ("CONSOLE", "METRICS"):
    address, port = daemon["environment"][f"BOATHOUSE__{listener}__LISTEN"].split(":")
    assert address == "0.0.0.0" and f"127.0.0.1:{port}:{port}" in daemon["ports"], f"{listener} cannot be reached"

# Grafana sends on whatever SQL it is given: it must do so as a user who only reads.
sources = yaml.safe_load((path.parent / "grafana-datasources.yaml").read_text())["datasources"]
name = next(source["jsonData"]["username"] for source in sources if source["uid"] == "boathouse-clickhouse")
users = ElementTree.parse(path.parent / "clickhouse-grafana.xml").getroot()
user = users.find(f"users/{name}")
assert user is not None and name != daemon["environment"]["BOATHOUSE__CLICKHOUSE__USER"], f"{name} is no user who only reads"
assert users.findtext(f"profiles/{user.findtext('profile')}/readonly") == "2", f"{name} may write"
grants = [query.text for query in user.findall("grants/query")]
assert grants and all(grant.startswith("GRANT SELECT ON ") and "*.*" not in grant for grant in grants), grants
reads = services["clickhouse"]["environment"][user.find("password").get("from_env")]
assert reads == services["grafana"]["environment"]["BOATHOUSE_GRAFANA_PASSWORD"], "Grafana has another password than its user"
mounted = [volume.split(":")[:2] for volume in services["clickhouse"]["volumes"]]
assert ["./clickhouse-grafana.xml", "/etc/clickhouse-server/users.d/grafana.xml"] in mounted, mounted
json.dump(daemon["environment"], sys.stdout)
