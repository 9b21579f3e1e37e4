#!/usr/bin/env python3
"""Puts and gets at any node, with nothing but grpcio and stubs made from `proto/`.

    python3 -m venv venv && venv/bin/pip install grpcio grpcio-tools
    venv/bin/python tests/python/kv_put_get.py 127.0.0.1:7101 127.0.0.1:7102 127.0.0.1:7103

Writes at every node, reads each value at every node, and shows a refusal with its detail. Exit status 0 if all was as it
should be. The stubs are made anew in a temporary directory at each run.
"""

import importlib
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "proto"
DEADLINE_SECONDS = 5


def stubs():
    """Makes the stubs and imports them."""
    directory = tempfile.mkdtemp(prefix="kv-stubs-")
    files = ["kv/v1/cluster.proto", "kv/v1/kv.proto"]
    arguments = ["protoc", f"-I{PROTOS}", f"--python_out={directory}", f"--grpc_python_out={directory}", *files]
    if protoc.main(arguments) != 0:
        sys.exit("the stubs can't be made")
    sys.path.insert(0, directory)
    return importlib.import_module("kv.v1.kv_pb2"), importlib.import_module("kv.v1.kv_pb2_grpc")


def detail(error, kv):
    """The ErrorDetail of a failed call: bytes of a google.rpc.Status, whose field 3 holds an Any, whose field 2 it is."""
    for name, value in error.trailing_metadata():
        if name == "grpc-status-details-bin":
            return kv.ErrorDetail.FromString(field(field(value, 3), 2))
    return None


def field(message, number):
    """The last length-delimited field of this number in an encoded message that has only varints and such fields."""
    found, at = b"", 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        length = varint()
        if key >> 3 == number:
            found = message[at : at + length]
        at += length
    return found


def main(addresses):
    kv, kv_grpc = stubs()
    nodes = {address: kv_grpc.KvStub(grpc.insecure_channel(address)) for address in addresses}
    wrong = 0
    for writer, at_writer in nodes.items():
        key = f"python/{writer}".encode()
        value = f"written at {writer}".encode()
        written = at_writer.Put(kv.PutRequest(key=key, value=value), timeout=DEADLINE_SECONDS)
        print(f"put  at {writer}  {key.decode()}  revision {written.revision}")
        for reader, at_reader in nodes.items():
            entry = at_reader.Get(kv.GetRequest(key=key), timeout=DEADLINE_SECONDS).entry
            good = entry.value == value and entry.revision == written.revision
            wrong += not good
            print(f"get  at {reader}  {entry.value.decode()}  {'ok' if good else 'WRONG'}")
    for address, node in nodes.items():
        try:
            node.Put(kv.PutRequest(key=key, value=b"x", if_absent=True), timeout=DEADLINE_SECONDS)
            wrong += 1
            print(f"put if absent at {address}  WRONG: it was not refused")
        except grpc.RpcError as error:
            told = detail(error, kv)
            good = told is not None and told.kind == kv.ERROR_KIND_CONFLICT and told.outcome == kv.OUTCOME_NOT_APPLIED
            wrong += not good
            print(f"put if absent at {address}  {error.code().name}: {error.details()}  {'ok' if good else 'WRONG'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
