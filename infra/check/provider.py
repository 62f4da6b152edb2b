"""Stands in for the AWS provider: a Terraform provider that knows the schema in aws-schema.json and plans what it is told.

Terraform's registry and the provider's binary cannot be had everywhere that tests run. With this Terraform itself validates and
plans: names and types of arguments, references, functions and conditions are real; what AWS would say to the values is not.
It speaks protocol 5 (https://github.com/hashicorp/terraform/tree/main/docs/plugin-protocol), of which it encodes by hand what
it needs, and is attached to by TF_REATTACH_PROVIDERS.
"""

import concurrent.futures
import json
import os
import pathlib

import grpc
import msgpack

SCHEMA = json.loads((pathlib.Path(__file__).parent / "aws-schema.json").read_text())["resources"]
PROVIDER = {"attributes": {"region": {"type": "string"}}, "blocks": {}}
# Terraform's own name for a value that is known only once the resource is there.
UNKNOWN = msgpack.ExtType(0, b"\0")
NESTED_LIST = 2


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, value):
    """A field of a protobuf message; a number that is 0 and text that is empty are left out, as there."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """The fields of a message that holds no fixed-width ones: by number, the last one's bytes or value."""
    found, at = {}, 0

    def number():
        nonlocal at
        shift = result = 0
        while True:
            byte = message[at]
            at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while at < len(message):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
        elif tag & 7 == 2:
            size = number()
            found[tag >> 3] = message[at:at + size]
            at += size
        else:
            raise ValueError(f"wire type {tag & 7}")
    return found


def encode_block(block):
    out = b""
    for name, attribute in sorted(block["attributes"].items()):
        required, computed = attribute.get("required", False), attribute.get("computed", False)
        optional = not required and "required" in attribute
        out += field(2, field(1, name) + field(2, json.dumps(attribute["type"])) + field(4, int(required))
                     + field(5, int(optional or not (required or computed))) + field(6, int(computed)))
    for name, nested in sorted(block["blocks"].items()):
        out += field(3, field(1, name) + field(2, encode_block(nested["block"])) + field(3, NESTED_LIST)
                     + field(4, nested["min"]) + field(5, nested["max"]))
    return out


def schema(block):
    return field(2, encode_block(block))


def get_schema(_request, _context):
    out = field(1, schema(PROVIDER))
    for name, block in SCHEMA.items():
        out += field(2, field(1, name) + field(2, schema(block)))
    return out


def plan(request, _context):
    """What is asked for, and unknown what only the resource itself would tell."""
    message = fields(request)
    name = message[1].decode()
    proposed = msgpack.unpackb(fields(message[3])[1], ext_hook=msgpack.ExtType, strict_map_key=False)
    if proposed is not None:
        for attribute, kind in SCHEMA[name]["attributes"].items():
            if kind.get("computed") and proposed.get(attribute) is None:
                proposed[attribute] = UNKNOWN
    return field(1, field(1, msgpack.packb(proposed)))


def nothing(_request, _context):
    return b""


METHODS = {
    "GetSchema": get_schema,
    "PrepareProviderConfig": lambda request, _context: field(1, fields(request)[1]),
    "ValidateResourceTypeConfig": nothing,
    "Configure": nothing,
    "PlanResourceChange": plan,
    "Stop": nothing,
}


def serve(folder):
    """Serves on a socket in `folder`; gives the server, and the value of TF_REATTACH_PROVIDERS by which it is found."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in METHODS.items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("tfplugin5.Provider", handlers)])
    socket = pathlib.Path(folder) / "provider"
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    address = {"Network": "unix", "String": str(socket)}
    how = {"Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True, "Addr": address}
    return server, json.dumps({"registry.terraform.io/hashicorp/aws": how})
