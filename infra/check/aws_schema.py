"""Extracts what infra/terraform uses of the AWS provider's schema, out of the wheel of a CDK binding generated from it.

usage: aws_schema.py cdktn_provider_aws-VERSION-py3-none-any.whl > aws-schema.json
(pip download --no-deps cdktn-provider-aws==25.8.1: the binding of provider 6.69.1)

A binding tells of each argument its name, its type, whether it is required, and whether it is a block. It does not tell lists
from sets, nor arguments that the provider fills in when they are not given; these count as plain optional ones.
"""

import ast
import json
import pathlib
import re
import sys
import zipfile

TERRAFORM = pathlib.Path(__file__).parent.parent / "terraform"
# Terraform's own, which stand in no schema.
META = {"scope", "id_", "connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}


def cty(annotation):
    """The type of an attribute, in Terraform's notation."""
    if "builtins.bool" in annotation:
        return "bool"
    sequence = re.search(r"typing\.Sequence\[(.*)\]", annotation)
    if sequence:
        return ["list", cty(sequence.group(1))]
    mapping = re.search(r"typing\.Mapping\[builtins\.str, (.*)\]", annotation)
    if mapping:
        return ["map", cty(mapping.group(1))]
    return "number" if "jsii.Number" in annotation else "string"


def block(classes, name, docs):
    """The schema of the arguments of class `name`."""
    init = next(node for node in classes[name].body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    attributes, blocks = {}, {}
    told = ast.get_docstring(init) or ""
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults):
        # Names that Python keeps for itself end in an underscore.
        name = argument.arg.rstrip("_")
        if argument.arg in META:
            continue
        annotation = ast.unparse(argument.annotation)
        required = default is None
        inner = [found for found in re.findall(r"""["']([A-Z]\w+)["']""", annotation) if found in classes]
        is_block = re.search(rf":param {argument.arg}: \w+ block\.", told) is not None
        if inner and is_block:
            many = "typing.Sequence" in annotation
            blocks[name] = {"block": block(classes, inner[0], docs), "min": int(required), "max": 0 if many else 1}
        elif inner:
            raise SystemExit(f"{docs}: {name} is a nested attribute, which this script does not know")
        else:
            attributes[name] = {"type": cty(annotation), "required": required}
    return {"attributes": attributes, "blocks": blocks}


def resource(wheel, package, name):
    source = wheel.read(f"{package}/{name.removeprefix('aws_')}/__init__.py").decode()
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    kind = next(
        key for key, node in classes.items()
        if f" {name}}}" in (ast.get_docstring(node) or "") and (ast.get_docstring(node) or "").startswith("Represents")
    )
    schema = block(classes, kind, name)
    arguments = set(schema["attributes"]) | set(schema["blocks"])
    for node in classes[kind].body:
        computed = isinstance(node, ast.FunctionDef) and any("jsii.member" in ast.unparse(one) for one in node.decorator_list)
        returns = ast.unparse(node.returns) if computed and node.returns else ""
        if computed and re.search(r"property", ast.unparse(node.decorator_list[0])) and node.name not in arguments:
            if node.name.endswith("_input") or node.name.lower().startswith("tf_") or returns not in ("builtins.str", "jsii.Number"):
                continue
            schema["attributes"][node.name] = {"type": "number" if "Number" in returns else "string", "computed": True}
    if "id" in schema["attributes"]:
        schema["attributes"]["id"]["computed"] = True
    return schema


def main():
    wheel = zipfile.ZipFile(sys.argv[1])
    package = pathlib.Path(sys.argv[1]).name.split("-")[0]
    used = sorted({
        name for path in TERRAFORM.glob("*.tf") for name in re.findall(r'^resource "(\w+)"', path.read_text(), re.MULTILINE)
    })
    metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA"))
    version = re.search(r"provider version ([\d.]+)", metadata).group(1)
    json.dump({"provider": version, "resources": {name: resource(wheel, package, name) for name in used}},
              sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
