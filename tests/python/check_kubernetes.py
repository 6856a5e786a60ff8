"""Holds the Kubernetes manifests together: what one part names, another has, and all of it is as the program behaves. Prints
the environment that the ConfigMap gives the daemon as JSON. FACTS are what the program and the image say of themselves.
  check_kubernetes.py FILE FACTS
"""

import json
import pathlib
import re
import sys

import yaml

path = pathlib.Path(sys.argv[1])
facts = json.loads(pathlib.Path(sys.argv[2]).read_text())
parts = {part["kind"]: part for part in yaml.safe_load_all(path.read_text())}
assert len({(part["metadata"]["namespace"], part["metadata"]["name"]) for part in parts.values()}) == 1, "one name everywhere"

workload = parts["StatefulSet"]["spec"]
pod = workload["template"]["spec"]
(daemon,) = pod["containers"]
labels = workload["template"]["metadata"]["labels"]
for selector in (
    workload["selector"]["matchLabels"],
    parts["Service"]["spec"]["selector"],
    parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
):
    assert selector.items() <= labels.items(), f"{selector} is on no pod"
assert workload["serviceName"] == parts["Service"]["metadata"]["name"]
assert pod["serviceAccountName"] == parts["ServiceAccount"]["metadata"]["name"]

environment = parts["ConfigMap"]["data"]
given = [(kind, source["name"]) for entry in daemon["envFrom"] for kind, source in entry.items()]
assert given == [("configMapRef", "boathouse"), ("secretRef", "boathouse")], given
secret = set(re.findall(r"--from-literal=(BOATHOUSE__\w+)=", path.read_text()))
assert {"BOATHOUSE__CLICKHOUSE__PASSWORD", "BOATHOUSE__HISTORY__URL"} == secret, f"the secret at the top: {secret}"
assert not secret & set(environment), "a secret in the ConfigMap"

# Instances that share a topic share a bucket and a history; a folder and a file are of one machine.
assert workload["replicas"] == 1 or environment["BOATHOUSE__LAKEHOUSE__URI"].startswith("s3://")

ports = {port["name"]: port["containerPort"] for port in daemon["ports"]}
for listener in ("console", "metrics"):
    listen = environment[f"BOATHOUSE__{listener.upper()}__LISTEN"]
    assert listen == f"0.0.0.0:{ports[listener]}", f"{listener} listens at {listen}, and its port is {ports[listener]}"
for port in parts["Service"]["spec"]["ports"]:
    assert port["port"] == ports[port["targetPort"]], port
annotations = workload["template"]["metadata"]["annotations"]
assert annotations["prometheus.io/port"] == str(ports["metrics"])

# Not ready is no reason to restart.
probes = {name: daemon[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness", "startup")}
wanted = {"liveness": "/healthz", "readiness": "/readyz", "startup": "/healthz"}
assert probes == {name: {"path": path, "port": "metrics"} for name, path in wanted.items()}, probes

assert pod["terminationGracePeriodSeconds"] > facts["deadline_s"], "SIGTERM could not drain"
assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == facts["user"]
# The folder is the volume's owner's: without the group nobody could write it.
assert pod["securityContext"]["fsGroup"] == facts["user"]
assert daemon["securityContext"]["readOnlyRootFilesystem"]
claims = {claim["metadata"]["name"] for claim in workload["volumeClaimTemplates"]}
volumes = claims | {volume["name"] for volume in pod["volumes"]}
mounts = {mount["mountPath"]: mount["name"] for mount in daemon["volumeMounts"]}
assert set(mounts.values()) == volumes, f"{mounts}, volumes {volumes}"
assert mounts[facts["data_dir"]] in claims, "what the daemon must remember would be gone with its pod"
limit = daemon["resources"]["limits"]["memory"]
assert limit.endswith("Gi") and int(limit[:-2]) * 2**30 > 2 * facts["memory_bytes"], f"a limit of {limit} is too little"
json.dump(environment, sys.stdout)
