"""Lints and renders infra/helm/haulout with Helm itself, and holds what comes out against Kubernetes' schemas.

What the example renders to is kept beside the chart (infra/helm/rendered.json): tests of haulout's run the commands in it, and
`kubectl apply -f` takes it. HAULOUT_UPDATE_SNAPSHOTS=1 writes it anew.
"""

import copy
import json
import os
import pathlib
import sys

import helm_python
import kubernetes_validate
import yaml

HELM = pathlib.Path(__file__).parent.parent / "helm"
CHART = str(HELM / "haulout")
SNAPSHOT = HELM / "rendered.json"
# The sidecar's container, and the volumes that it brings along, as JSON.
SIDECAR_SNAPSHOT = HELM / "sidecar.json"
# The objects of the agent.
AGENT_SNAPSHOT = HELM / "agent.json"
# The oldest that Chart.yaml takes, and a newer one.
KUBERNETES = ("1.31", "1.35")
KINDS = {"ServiceAccount": 4, "CronJob": 5, "Job": 1}
AGENT_KINDS = {"ConfigMap": 1, "Service": 1, "Deployment": 1}

# Values that must be refused, laid over the example's.
REFUSED = [
    {"repository": {"url": "db1"}},
    {"server": {"host": "", "socket": ""}},
    {"server": {"claimName": ""}},
    {"server": {"podLabels": None}},
    {"server": {"uid": 0}},
    {"backup": {"scheduled": "@daily"}},
    {"repository": {"sealed": {"keyFile": "key"}}},
    {"restore": {"enabled": True, "backup": "yesterday"}},
    {"roles": {"admin": {}}},
    {"sidecar": {"enabled": True}},
    {"sidecar": {"periodSeconds": 0}},
    {"agent": {"enabled": True}},
    {"agent": {"enabled": True}, "backup": {"enabled": False}, "sidecar": {"enabled": True}},
    {"agent": {"port": 80}},
    {"agent": {"schedule": "0 * * * *"}},
    {"copy": {"to": ""}},
    {"copy": {"to": "elsewhere"}},
    # Keys in the environment would go before the profiles.
    {"copy": {"profiles": {"secretName": "profiles"}}, "roles": {"copier": {"credentialsSecret": "s3"}}},
]


def laid_over(values, more):
    """`values` with `more` over them, as Helm lays values files over each other; null takes a value away."""
    values = copy.deepcopy(values)
    for key, value in more.items():
        if value is None:
            values.pop(key, None)
        elif isinstance(value, dict) and isinstance(values.get(key), dict):
            values[key] = laid_over(values[key], value)
        else:
            values[key] = value
    return values


def rendered(chart, values):
    """The objects that the chart makes of `values`."""
    chart.validate_schema(values)
    files = chart.render(values, name="db1", namespace="databases")
    return [one for name in sorted(files) for one in yaml.safe_load_all(files[name]) if one]


def check_container(container, name):
    """What must hold of every container that runs haulout."""
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name
    assert security["capabilities"]["drop"] == ["ALL"], name
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"], name
    for variable in container["env"]:
        secret = any(word in variable["name"] for word in ("PASSWORD", "PASSPHRASE", "SECRET", "ACCESS_KEY"))
        assert not secret or "value" not in variable, f"{name}: {variable['name']} stands in the manifest"


def check_sidecar(chart, values, server):
    """That the chart prints for `values` what `server`, a StatefulSet, has; gives it."""
    manifests = rendered(chart, values)
    [printed] = [one["data"] for one in manifests if one["kind"] == "ConfigMap"]
    [sidecar], volumes = yaml.safe_load(printed["containers"]), yaml.safe_load(printed["volumes"])
    assert not [one for one in manifests if one["metadata"]["name"].endswith("-backup")], "two that take backups"
    check_container(sidecar, "sidecar")
    security = sidecar["securityContext"]
    assert security["runAsNonRoot"] and security["seccompProfile"]["type"] == "RuntimeDefault", "of its own, whatever the pod has"
    assert all(mount.get("readOnly") or mount["name"] == "haulout-cache" for mount in sidecar["volumeMounts"]), sidecar
    if server:
        spec = server["spec"]["template"]["spec"]
        assert [one for one in spec["containers"] if one["name"] == "haulout"] == [sidecar], "the StatefulSet's sidecar is another"
        assert [one for one in spec["volumes"] if one["name"].startswith("haulout-")] == volumes
        there = {one["name"] for one in spec["volumes"]} | {one["metadata"]["name"] for one in server["spec"]["volumeClaimTemplates"]}
        assert {mount["name"] for mount in sidecar["volumeMounts"]} <= there
        for version in KUBERNETES:
            kubernetes_validate.validate(server, version, strict=True)
    return {"container": sidecar, "volumes": volumes}


def pod(manifest):
    spec = manifest["spec"]
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"]["spec"]


def check_pod(manifest):
    """What must hold of every pod, whatever the values."""
    name, spec = manifest["metadata"]["name"], pod(manifest)
    security = spec["securityContext"]
    assert security["runAsNonRoot"] and security["runAsUser"] > 0, f"{name} runs as root"
    assert security["seccompProfile"]["type"] == "RuntimeDefault", name
    assert spec["automountServiceAccountToken"] is False, f"{name} has a token of the cluster's"
    mounts = {volume["name"]: volume for volume in spec["volumes"]}
    for container in spec["containers"]:
        check_container(container, name)
        assert {mount["name"] for mount in container["volumeMounts"]} == mounts.keys(), f"{name}: volumes and mounts"
    # A changed group of the datadir's files would change them under the server.
    assert "datadir" not in mounts or "fsGroup" not in spec["securityContext"], name


def check_agent(chart, values):
    """The agent of `values`, in the place of jobs; gives its objects."""
    manifests = rendered(chart, values)
    jobs = [one["metadata"]["name"] for one in manifests if one["kind"] == "CronJob"]
    assert not [name for name in jobs if name.endswith(("-backup", "-check"))], f"two that take backups: {jobs}"
    objects = [one for one in manifests if one["metadata"]["labels"].get("app.kubernetes.io/component") == "agent" and one["kind"] != "ServiceAccount"]
    kinds = [one["kind"] for one in objects]
    assert {kind: kinds.count(kind) for kind in kinds} == AGENT_KINDS, kinds
    by_kind = {one["kind"]: one for one in objects}
    deployment, service = by_kind["Deployment"], by_kind["Service"]
    check_pod(deployment)
    template = deployment["spec"]["template"]
    # Two of one server would take turns at its leases.
    assert deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"]["type"] == "Recreate"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    spec = template["spec"]
    assert spec["restartPolicy"] == "Always"
    [container] = spec["containers"]
    assert all(mount.get("readOnly") or mount["name"] in ("cache", "state") for mount in container["volumeMounts"]), container
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"] == service["spec"]["ports"][0]["targetPort"]
    check_schemas(manifests)
    return objects


def check_copy(manifests):
    """A copy needs no key: its pod has none, and not the server's password."""
    copies = [one for one in manifests if one["metadata"]["labels"].get("app.kubernetes.io/component") == "copy"]
    assert len(copies) == 2
    for spec in map(pod, copies):
        assert not {volume["name"] for volume in spec["volumes"]} & {"key", "datadir"}, spec["volumes"]
        names = {variable["name"] for variable in spec["containers"][0]["env"]}
        assert "HAULOUT_COPY_TO" in names
        assert not names & {"HAULOUT_KEY_FILE", "HAULOUT_PASSPHRASE", "HAULOUT_PASSWORD"}, names
        assert spec["serviceAccountName"] == "db1-haulout-copier"


def check_schemas(manifests):
    for manifest in manifests:
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)
    broken = copy.deepcopy(next(one for one in manifests if one["kind"] == "CronJob"))
    pod(broken)["containers"][0]["volumeMount"] = []
    try:
        kubernetes_validate.validate(broken, KUBERNETES[0], strict=True)
    except kubernetes_validate.ValidationError:
        return
    raise AssertionError("an unknown field of a container was taken")


def check_refusals(chart, values):
    for more in REFUSED:
        try:
            chart.validate_schema(laid_over(values, more))
        except helm_python.HelmError:
            continue
        raise AssertionError(f"{more} was taken")


def check_snapshot(path, value):
    text = json.dumps(value, indent=2) + "\n"
    if os.environ.get("HAULOUT_UPDATE_SNAPSHOTS"):
        path.write_text(text)
    assert path.exists() and path.read_text() == text, f"{path.name} is not what the chart renders to"


def main():
    values = yaml.safe_load((HELM / "example.yaml").read_text())
    values["restore"] = {"enabled": True}
    found = helm_python.lint(CHART, values)
    # 1 is for information: that there is no icon.
    bad = [message for message in found["messages"] if message["severity"] > 1] + found["errors"]
    assert not bad, f"helm lint: {bad}"
    with helm_python.Chart.load(CHART) as chart:
        manifests = rendered(chart, values)
        kinds = [one["kind"] for one in manifests]
        assert {kind: kinds.count(kind) for kind in kinds} == KINDS, kinds
        # Ways in which the example does not go.
        sealed = {"secretName": "keys", "keyFile": "key", "passphrase": ""}
        other = laid_over(values, {
            "server": {"socket": "/var/lib/mysql/mysqld.sock", "subPath": "data", "passwordSecret": None},
            "repository": {"sealed": sealed, "endpointUrl": "https://s3.example.com"},
            "roles": {"agent": {"credentialsSecret": "s3", "annotations": None}},
            "image": {"pullSecrets": [{"name": "registry"}]},
            "nodeSelector": {"disk": "fast"}, "tolerations": [{"operator": "Exists"}],
            "drill": {"scratch": {"storageClassName": "fast"}},
            "copy": {"endpointUrl": "https://s3.example.org", "profiles": {"secretName": "profiles", "repository": "first"}},
        })
        others = rendered(chart, other)
        nothing = {name: {"enabled": False} for name in ("backup", "prune", "copy", "check", "drill", "restore")}
        assert {one["kind"] for one in rendered(chart, laid_over(values, nothing))} == {"ServiceAccount"}
        for one in manifests + others:
            if one["kind"] != "ServiceAccount":
                check_pod(one)
        check_copy(manifests + others)
        check_schemas(manifests)
        check_schemas(others)
        check_refusals(chart, values)
        of_sidecar = yaml.safe_load((HELM / "sidecar.yaml").read_text())
        sidecar = check_sidecar(chart, of_sidecar, yaml.safe_load((HELM / "statefulset.yaml").read_text()))
        # By the network, and with a passphrase.
        by_host = {"server": {"host": "127.0.0.1", "socket": "", "subPath": "data", "passwordSecret": {"name": "db1"}},
                   "repository": {"sealed": {"keyFile": "", "passphrase": "phrase"}}, "sidecar": {"socketVolume": ""},
                   "roles": {"agent": {"credentialsSecret": "s3"}}}
        assert len(check_sidecar(chart, laid_over(of_sidecar, by_host), None)["volumes"]) == 1
        of_agent = laid_over(values, {"backup": {"enabled": False}, "check": {"enabled": False}, "restore": {"enabled": False}, "agent": {"enabled": True}})
        agent = check_agent(chart, of_agent)
        with_token = {"agent": {"token": {"secretName": "page"}, "hosts": ["backup.example"]}, "repository": {"sealed": sealed}}
        check_agent(chart, laid_over(of_agent, with_token))
    check_snapshot(AGENT_SNAPSHOT, {"apiVersion": "v1", "kind": "List", "items": agent})
    check_snapshot(SNAPSHOT, {"apiVersion": "v1", "kind": "List", "items": manifests})
    check_snapshot(SIDECAR_SNAPSHOT, sidecar)
    print(f"   Helm {helm_python.helm_sdk_version()}: linted, rendered; {len(manifests) + len(others)} objects fit Kubernetes "
          f"{' and '.join(KUBERNETES)}; {len(REFUSED)} wrong values refused; the StatefulSet has the sidecar that is printed")


if __name__ == "__main__":
    sys.exit(main())
