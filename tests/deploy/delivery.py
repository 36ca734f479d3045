"""A delivery with nothing real around it but its scripts, kustomize, and an HTTP server that stands for the shop."""

import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parent / "fake.sh"
PIPELINE = ROOT / "deploy" / "pipeline"
REPOSITORY = "123456789012.dkr.ecr.ap-northeast-2.amazonaws.com/street12"
OLD, NEW = f"{REPOSITORY}@sha256:{'0' * 64}", f"{REPOSITORY}@sha256:{'d' * 64}"

# What the scripts may use of the machine: so what is installed beside it makes no difference.
_TOOLS = """
bash basename cat cp curl cut date dirname env find git grep jq
ls mkdir mktemp realpath rm sed sh sleep sort tar tr
"""
_WORKLOADS = ("api", "codec-server", "worker-delivery", "worker-marketing", "worker-order")
_KUSTOMIZATION = "namespace: street12\nresources: [all.yaml]\nimages: [{{name: street12, newName: {}/street12}}]\n"
_WORKS = "spec: {template: {spec: {containers: [{name: street12, image: street12}]}}}\n"


class Delivery:
    """The scripts, and what they find."""

    def __init__(self, directory: Path, kubectl: Path) -> None:
        self.fakes, self.state = directory / "fakes", directory / "state"
        self.overlay, self._bin = directory / "overlay", directory / "bin"
        (self.fakes / "cluster").mkdir(parents=True)
        self.state.mkdir()
        self._bin.mkdir()
        for tool in _TOOLS.split():
            found = shutil.which(tool)
            assert found is not None, tool
            (self._bin / tool).symlink_to(found)
        for program in ("aws", "docker", "kubectl", "make", "trivy"):
            self.install(program)
        _write(self.overlay, [_object(f"apps/v1 Deployment {name}") for name in _WORKLOADS])
        jobs = [_object(f"batch/v1 Job {name}") for name in ("migrate-order", "namespace")]
        _write(self.overlay / "migrate", jobs)
        self.environment = {
            "PATH": str(self._bin),
            "HOME": str(directory),
            "FAKES": str(self.fakes),
            "KUBECTL": str(kubectl),
            "PIPELINE_STATE": str(self.state),
            "OVERLAY": str(self.overlay),
            "IMAGE_REPOSITORY": REPOSITORY,
            "POLL_SECONDS": "0",
            "SMOKE_RETRIES": "0",
        }

    def install(self, program: str) -> None:
        """Put a fake of a program onto the PATH."""
        (self._bin / program).symlink_to(FAKE)

    def remove(self, program: str) -> None:
        """Have a machine without it."""
        (self._bin / program).unlink()

    def tell(self, name: str, text: str = "") -> None:
        """Have the fakes find this (see there)."""
        (self.fakes / name).write_text(text)

    def begin(self, *steps: str) -> subprocess.Popen[str]:
        """Start `run.sh`."""
        output = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(
            [PIPELINE / "run.sh", *steps], env=self.environment, stdout=output[0], stderr=output[1], text=True, cwd="/"
        )

    def run(self, *steps: str) -> tuple[int, str]:
        """Run `run.sh` to its end: the exit status, and what was said."""
        running = self.begin(*steps)
        said, _ = running.communicate(timeout=120)
        return running.returncode, said

    def deployed(self) -> None:
        """Have the former release run, and an image pushed that is to follow."""
        self.left("image", OLD)
        assert self.run("roll-out")[0] == 0
        for name in ("open", "previous.for"):
            (self.state / name).unlink()
        self.left("image", NEW)
        (self.fakes / "calls").unlink()

    def left(self, name: str, text: str) -> None:
        """What an earlier step left."""
        (self.state / name).write_text(text + "\n")

    def calls(self, program: str = "") -> list[str]:
        """What was called, in order."""
        file = self.fakes / "calls"
        called = file.read_text().splitlines() if file.exists() else []
        return [call for call in called if call.startswith(program)]

    def applied(self) -> list[str]:
        """The workloads and jobs that were applied, those of one call together."""
        told: list[str] = []
        for call in self.calls("kubectl apply"):
            names = [file.rpartition("_")[2].partition(".")[0] for file in call.split(" -f ")[1:] if _runs(file)]
            told += [" ".join(names)] if names else []
        return told

    def running(self) -> dict[str, str]:
        """The image that each workload has now."""
        found: dict[str, str] = {}
        for file in (self.fakes / "cluster").glob("*deployment_*"):
            line = next(line for line in file.read_text().splitlines() if "image:" in line)
            found[file.name.rpartition("_")[2]] = line.split()[-1]
        return found


def _runs(file: str) -> bool:
    return "deployment_" in file or "_job_" in file


def _object(what: str, more: str = _WORKS) -> str:
    version, kind, name = what.split()
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n{more}"


def _write(directory: Path, workloads: list[str]) -> None:
    directory.mkdir(parents=True)
    around = [
        _object("v1 Namespace street12", "\n"),
        _object("v1 ConfigMap temporal", "data: {TEMPORAL_ADDRESS: temporal}\n"),
        _object("networking.k8s.io/v1 NetworkPolicy nobody", "spec: {podSelector: {}}\n"),
    ]
    (directory / "all.yaml").write_text("---\n".join([*around, *workloads]))
    (directory / "kustomization.yaml").write_text(_KUSTOMIZATION.format("registry.example"))


class ShopFront(ThreadingHTTPServer):
    """What customers reach. It notes what was asked of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []
        self.products = '{"items": [{"productId": "2001"}]}'
        self.alerts = '{"data": {"alerts": []}}'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        shop = self.server
        assert isinstance(shop, ShopFront)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        shop.asked.append(f"{self.command} {self.path} {body}".strip())
        authorized = self.headers.get("Authorization") == "Bearer letmein"
        if self.path == "/products":
            status, text = (200, shop.products) if shop.products else (503, "overloaded")
        elif self.path == "/api/v1/alerts":
            status, text = 200, shop.alerts
        elif not authorized:
            status, text = 401, "who is calling?"
        elif self.path == "/orders":
            status, text = 202, '{"orderId": "order_1", "orderStatus": "OrderPlaced"}'
        elif self.path == "/orders/order_1/cancel":
            status, text = 202, '{"orderId": "order_1", "orderStatus": "OrderCanceling"}'
        elif self.path == "/orders/order_1":
            status, text = 200, '{"orderId": "order_1", "orderStatus": "OrderCanceled"}'
        else:
            status, text = 404, "no such thing"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def shop_front() -> Generator[ShopFront]:
    """A shop that answers while the block lasts."""
    with ShopFront() as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()
