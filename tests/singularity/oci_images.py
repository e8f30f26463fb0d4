"""Images in the ways that Apptainer fetches them: an OCI layout, a docker archive, a registry on this machine."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class OciImage:
    """An image of one layer: the files of a directory, as an ordinary user's."""

    def __init__(self, tree: Path) -> None:
        self.tar = tarred(tree)
        self.layer = gzip.compress(self.tar, compresslevel=1, mtime=0)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(self.tar)]},
        }
        self.config = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(_CONFIG, self.config),
            "layers": [described(_LAYER, self.layer)],
        }
        self.manifest = json.dumps(manifest).encode()

    @property
    def blobs(self) -> dict[str, bytes]:
        return {digest(data): data for data in (self.layer, self.config, self.manifest)}

    def write_layout(self, directory: Path) -> Path:
        """An OCI image layout (image-spec, image-layout.md)."""
        (directory / "blobs" / "sha256").mkdir(parents=True)
        for name, data in self.blobs.items():
            (directory / "blobs" / "sha256" / name.partition(":")[2]).write_bytes(data)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "manifests": [described(MANIFEST, self.manifest)]}
        (directory / "index.json").write_text(json.dumps(index))
        return directory

    def write_archive(self, path: Path) -> Path:
        """What ``docker save`` writes."""
        manifest = [{"Config": "config.json", "RepoTags": ["lab/image:latest"], "Layers": ["layer.tar"]}]
        with tarfile.open(path, "w") as archive:
            add(archive, "layer.tar", self.tar)
            add(archive, "config.json", self.config)
            add(archive, "manifest.json", json.dumps(manifest).encode())
        return path

    @contextmanager
    def served(self, name: str) -> Iterator[Registry]:
        """A registry on this machine that has the image by one name (distribution-spec, pull)."""
        registry = Registry(self, name)
        thread = threading.Thread(target=registry.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            registry.shutdown()
            thread.join()
            registry.server_close()


class Registry(http.server.ThreadingHTTPServer):
    """Attributes: asked: what was asked for, in order."""

    def __init__(self, image: OciImage, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.image, self.name = image, name
        self.asked: list[str] = []

    @property
    def reference(self) -> str:
        return f"docker://127.0.0.1:{self.server_port}/{self.name}:latest"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.server.asked.append(self.path)
        image, prefix = self.server.image, f"/v2/{self.server.name}"
        manifest = {f"{prefix}/manifests/{tag}" for tag in ("latest", digest(image.manifest))}
        if self.path == "/v2/":
            self.say("application/json", b"{}")
        elif self.path in manifest:
            self.say(MANIFEST, image.manifest)
        elif self.path.startswith(f"{prefix}/blobs/") and self.path.rpartition("/")[2] in image.blobs:
            self.say("application/octet-stream", image.blobs[self.path.rpartition("/")[2]])
        else:
            self.send_error(404)

    def say(self, media_type: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", digest(data))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the class
        pass


def described(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def tarred(tree: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(tree, ".", filter=_as_users)
    return stream.getvalue()


def _as_users(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    return None if entry.ischr() or entry.isblk() else entry
