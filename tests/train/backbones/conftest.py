import hashlib
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch


class Torch7Writer:
    """Torch 7's binary form, byte by byte as its `File` class documents it."""

    def __init__(self):
        self.index = 0
        self.classes = {"float32": "Float", "float64": "Double", "int64": "Long", "uint8": "Byte"}

    def next_index(self):
        self.index += 1
        return struct.pack("<i", self.index)

    def text(self, value):
        return struct.pack("<i", len(value.encode())) + value.encode()

    def write(self, value):
        """None, numbers, booleans, strings, dicts, arrays, and (class name, dict) for objects."""
        if value is None:
            return struct.pack("<i", 0)
        if isinstance(value, bool):
            return struct.pack("<ii", 5, value)
        if isinstance(value, int | float):
            return struct.pack("<id", 1, value)
        if isinstance(value, str):
            return struct.pack("<i", 2) + self.text(value)
        if isinstance(value, dict):
            head = struct.pack("<i", 3) + self.next_index() + struct.pack("<i", len(value))
            return head + b"".join(self.write(k) + self.write(v) for k, v in value.items())
        if isinstance(value, np.ndarray):
            return self.tensor(value)
        name, fields = value
        head = struct.pack("<i", 4) + self.next_index() + self.text("V 1") + self.text(name)
        return head + self.write(fields)

    def tensor(self, array, offset=1, strides=None, storage=None):
        kind = self.classes[array.dtype.name]
        if strides is None:
            strides = [s // array.itemsize for s in np.ascontiguousarray(array).strides]
        stored = np.ascontiguousarray(array).ravel() if storage is None else storage
        n = array.ndim
        head = struct.pack("<i", 4) + self.next_index()
        head += self.text("V 1") + self.text(f"torch.{kind}Tensor") + struct.pack("<i", n)
        head += struct.pack(f"<{n}q", *array.shape) + struct.pack(f"<{n}q", *strides)
        head += struct.pack("<q", offset)
        head += struct.pack("<i", 4) + self.next_index()
        head += self.text("V 1") + self.text(f"torch.{kind}Storage")
        return head + struct.pack("<q", len(stored)) + stored.tobytes()


@pytest.fixture
def torch7():
    return Torch7Writer()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        plan = server.plan.pop(0) if server.plan else {}
        content = server.files.get(self.path)
        if "status" in plan or content is None:
            self.send_error(plan.get("status", 404))
            return
        start = 0
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, server.etag)
        if asked and same and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.etag is not None:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        # A plan may cut the connection after some bytes of the body.
        self.wfile.write(content[start : start + plan.get("bytes", len(content))])


@pytest.fixture
def file_server():
    """A real HTTP server on this machine: files, a plan of faults, and the requests it had."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.files, server.plan, server.requests = {}, [], []
    server.etag, server.ranges = '"1"', True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def names_sha256():
    """Hash of a network's tensor names and shapes, to compare with that of a published one."""

    def names_sha256(network):
        lines = [f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    return names_sha256


@pytest.fixture(scope="session")
def filled():
    """Weights by a formula, so that two programs that never met can compare what they compute."""

    def filled(network):
        state = network.state_dict()
        for number, (name, value) in enumerate(state.items()):
            if name.endswith("num_batches_tracked"):
                continue
            wave = torch.sin(torch.arange(value.numel()) * 0.37 + number).view(value.shape)
            if value.dim() > 1:
                wave *= (2 / value[0].numel()) ** 0.5
            elif name.endswith("running_var"):
                wave = 1 + wave / 2
            elif name.endswith("weight"):
                wave = 1 + wave / 5
            else:
                wave /= 10
            value.copy_(wave)
        return network.eval()

    return filled


@pytest.fixture(scope="session")
def wave_frames():
    """(1, 3, side, side) by a formula; see filled."""

    def wave_frames(side):
        return torch.sin(torch.arange(3 * side**2) * 0.011).view(1, 3, side, side)

    return wave_frames
