"""The delivery's scripts, run for real against programs that only note what they are asked."""

import json
import os
import signal
import subprocess
from asyncio import create_subprocess_exec
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.apt import find_program
from tests.deploy.delivery import NEW, OLD, PIPELINE, REPOSITORY, ROOT, Delivery, ShopFront, shop_front
from tests.deploy.kubectl import find_kubectl
from tests.missing import need

STEPS = ("gates", "test", "build", "scan", "push", "migrate", "roll-out", "verify")
OTHERS = "codec-server worker-delivery worker-marketing"
TAG_OF_HEAD = subprocess.run(
    ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout[:12]


@pytest.fixture
async def delivery(tmp_path: Path, pytestconfig: pytest.Config) -> Delivery:
    kubectl = await need(pytestconfig, "kubectl", find_kubectl)
    for program in ("curl", "jq"):
        await need(pytestconfig, program, lambda program=program: find_program(program, package=program))
    return Delivery(tmp_path, kubectl)


@pytest.fixture
def shop(delivery: Delivery) -> Iterator[ShopFront]:
    with shop_front() as server:
        delivery.environment["PUBLIC_URL"] = server.url
        yield server


def test_a_delivery_goes_all_the_way_and_workers_come_before_the_api(delivery: Delivery, shop: ShopFront) -> None:
    code, said = delivery.run(*STEPS)
    assert code == 0, said
    called = delivery.calls()
    order = [
        *("make gates", "make test", "docker build", "docker save", "trivy image", "aws ecr describe-repositories"),
        *("aws ecr get-login-password", "docker push", "kubectl delete", "kubectl rollout status"),
    ]
    firsts = [next(at for at, call in enumerate(called) if call.startswith(one)) for one in order]
    assert firsts == sorted(firsts), called
    assert delivery.applied() == ["migrate-order namespace", OTHERS, "worker-order", "api"]
    assert set(delivery.running().values()) == {NEW}
    assert shop.asked == ["GET /products"]
    assert not (delivery.state / "open").exists()


def test_each_stage_is_ready_before_the_next_begins(delivery: Delivery) -> None:
    delivery.left("image", NEW)
    assert delivery.run("roll-out")[0] == 0
    what = [call.split(" --timeout")[0] for call in delivery.calls() if "_deployment_" in call and " get " not in call]
    file = "-f apps_v1_deployment_{}.yaml".format
    assert what == [
        "kubectl apply " + " ".join(file(name) for name in OTHERS.split()),
        *(f"kubectl rollout status {file(name)}" for name in OTHERS.split()),
        *(f"kubectl {what} {file('worker-order')}" for what in ("apply", "rollout status")),
        *(f"kubectl {what} {file('api')}" for what in ("apply", "rollout status")),
    ]
    pods_need, around, *_ = delivery.calls("kubectl apply")
    assert "v1_namespace" in pods_need
    assert "networkpolicy" in around


def test_the_image_is_that_of_the_commit_and_says_so(delivery: Delivery) -> None:
    assert delivery.run("build")[0] == 0
    tag = (delivery.state / "tag").read_text().strip()
    assert tag.endswith("-" + TAG_OF_HEAD)
    [build] = delivery.calls("docker build")
    assert f"--tag street12:{tag}" in build
    assert f"org.opencontainers.image.revision={TAG_OF_HEAD}" in build
    assert f"org.opencontainers.image.version={tag.partition('-')[0]}" in build
    context = (delivery.fakes / "context").read_text().splitlines()
    assert "pyproject.toml" in context
    assert ".git" not in context


@pytest.mark.parametrize("gate", ["make", "docker", "trivy"])
def test_what_fails_stops_the_delivery_before_anything_is_pushed(delivery: Delivery, gate: str) -> None:
    delivery.tell(f"{gate}-fails")
    code, said = delivery.run(*STEPS)
    assert code == 1, said
    assert not [call for call in delivery.calls() if call.startswith(("aws", "docker push", "kubectl"))]


def test_what_was_not_scanned_is_not_pushed(delivery: Delivery) -> None:
    assert delivery.run("build", "scan")[0] == 0
    code, said = delivery.run("build", "push")
    assert code == 1
    assert "run deploy/pipeline/scan.sh first" in said
    assert not delivery.calls("docker push")


def test_a_machine_without_a_scanner_does_not_pass(delivery: Delivery) -> None:
    delivery.remove("trivy")
    code, said = delivery.run("build", "scan")
    assert code == 1
    assert "install trivy" in said


def test_the_scanner_may_be_an_image_named_by_its_digest(delivery: Delivery) -> None:
    delivery.remove("trivy")
    delivery.environment["SCANNER_IMAGE"] = "registry.example/trivy:latest"
    code, said = delivery.run("build", "scan")
    assert code == 1
    assert "by its digest" in said
    delivery.environment["SCANNER_IMAGE"] = f"registry.example/trivy@sha256:{'1' * 64}"
    assert delivery.run("build", "scan")[0] == 0
    assert [call for call in delivery.calls("docker run") if "--exit-code 1" in call and ":ro" in call]


def test_tags_that_can_be_moved_are_refused(delivery: Delivery) -> None:
    delivery.tell("mutability", "MUTABLE")
    code, said = delivery.run("build", "scan", "push")
    assert code == 1
    assert "put-image-tag-mutability" in said
    assert not delivery.calls("docker push")


def test_a_second_run_for_the_same_commit_deploys_what_the_first_one_pushed(
    delivery: Delivery, shop: ShopFront
) -> None:
    assert delivery.run(*STEPS)[0] == 0
    code, said = delivery.run(*STEPS)
    assert code == 0, said
    assert len(delivery.calls("docker push")) == 1
    assert "is there already" in said
    assert (delivery.state / "image").read_text() == NEW + "\n"


@pytest.mark.parametrize(
    ("outcome", "told"), [("FailureTarget Failed", "failed, and says why above"), ("", "after 0 s (MIGRATION_SECONDS)")]
)
def test_a_migration_that_does_not_succeed_stops_before_the_roll_out(
    delivery: Delivery, outcome: str, told: str
) -> None:
    delivery.deployed()
    delivery.environment["MIGRATION_SECONDS"] = "0"
    delivery.tell("outcome-batch_v1_job_migrate-order", outcome)
    code, said = delivery.run("migrate", "roll-out", "verify")
    assert code == 1
    assert "what job.batch/migrate-order says" in said
    assert "migrate-order" in said.splitlines()[-2]
    assert told in said.splitlines()[-2]
    assert delivery.applied() == ["migrate-order namespace"]
    assert set(delivery.running().values()) == {OLD}


def test_migrations_of_an_earlier_delivery_are_done_again_with_the_new_image(delivery: Delivery) -> None:
    delivery.left("image", NEW)
    assert delivery.run("migrate", "migrate")[0] == 0
    deletes = [call for call in delivery.calls() if call.startswith(("kubectl delete", "kubectl apply -f batch"))]
    assert [call.split()[1] for call in deletes] == ["delete", "apply"] * 2
    assert NEW in (delivery.fakes / "cluster" / "batch_v1_job_migrate-order").read_text()


def test_a_shop_that_does_not_answer_is_rolled_back_in_the_reverse_order(delivery: Delivery, shop: ShopFront) -> None:
    delivery.deployed()
    shop.products = ""
    code, said = delivery.run("migrate", "roll-out", "verify")
    assert code == 1
    assert delivery.applied() == [
        *("migrate-order namespace", OTHERS, "worker-order", "api"),
        *("api", "worker-order", *OTHERS.split()),
    ]
    assert set(delivery.running().values()) == {OLD}
    assert "docs/changing-workflows.md" in said
    assert not (delivery.state / "open").exists()


@pytest.mark.parametrize("stuck", ["worker-marketing", "worker-order", "api"])
def test_a_workload_that_does_not_get_ready_stops_the_stages_and_goes_back(delivery: Delivery, stuck: str) -> None:
    delivery.deployed()
    delivery.tell(f"stuck-{stuck}", NEW)
    code, said = delivery.run("roll-out", "verify")
    assert code == 1
    assert f"{stuck}.yaml was not ready" in said
    stages = [OTHERS, "worker-order", "api"]
    reached = next(at for at, stage in enumerate(stages) if stuck in stage) + 1
    assert delivery.applied()[:-5] == stages[:reached]
    assert set(delivery.running().values()) == {OLD}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_roll_out_that_is_stopped_goes_back(delivery: Delivery, number: signal.Signals, code: int) -> None:
    delivery.deployed()
    delivery.tell("stuck-worker-order", NEW)
    os.mkfifo(delivery.fakes / "reached")
    running = delivery.begin("roll-out", "verify")
    (delivery.fakes / "reached").read_text()
    running.send_signal(number)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == code, said
    assert set(delivery.running().values()) == {OLD}
    assert not (delivery.state / "open").exists()


def test_a_roll_back_that_failed_can_be_run_again(delivery: Delivery, shop: ShopFront) -> None:
    delivery.deployed()
    shop.products = ""
    delivery.tell("stuck-worker-order", OLD)
    code, said = delivery.run("roll-out", "verify")
    assert code == 1
    assert "see to it by hand" in said
    (delivery.fakes / "stuck-worker-order").unlink()
    assert delivery.run("roll-back")[0] == 0
    assert set(delivery.running().values()) == {OLD}
    code, said = delivery.run("roll-back")
    assert code == 0
    assert "no roll-out is open" in said


def test_what_was_there_before_is_not_forgotten_when_a_roll_out_is_tried_again(delivery: Delivery) -> None:
    delivery.deployed()
    delivery.tell("stuck-worker-order", NEW)
    by_hand = subprocess.run([PIPELINE / "roll-out.sh"], env=delivery.environment, capture_output=True, check=False)
    assert by_hand.returncode == 1
    assert set(delivery.running().values()) == {OLD, NEW}
    assert delivery.run("migrate", "roll-out")[0] == 1
    assert set(delivery.running().values()) == {OLD}


def test_the_first_release_has_nothing_to_go_back_to_and_says_so(delivery: Delivery, shop: ShopFront) -> None:
    delivery.left("image", NEW)
    shop.products = '{"items": []}'
    code, said = delivery.run("roll-out", "verify")
    assert code == 1
    assert "names no product" in said
    assert "api is new with this release, and stays" in said


def test_what_somebody_changed_by_hand_fails_the_verification(delivery: Delivery, shop: ShopFront) -> None:
    delivery.left("image", NEW)
    assert delivery.run("roll-out")[0] == 0
    api = delivery.fakes / "cluster" / "apps_v1_deployment_api"
    api.write_text(api.read_text().replace(NEW, OLD))
    code, said = delivery.run("verify")
    assert code == 1
    assert f"api.yaml runs {OLD}, not {NEW}" in said


def test_with_a_token_an_order_is_placed_and_cancelled(delivery: Delivery, shop: ShopFront) -> None:
    delivery.left("image", NEW)
    delivery.environment |= {"SMOKE_TOKEN": "letmein", "SMOKE_ORDER": '{"productId": "2001"}'}
    code, said = delivery.run("roll-out", "verify")
    assert code == 0, said
    assert shop.asked == [
        *("GET /products", 'POST /orders {"productId": "2001"}', "POST /orders/order_1/cancel", "GET /orders/order_1"),
    ]
    assert "letmein" not in said


def test_a_token_that_is_not_taken_is_a_failure(delivery: Delivery, shop: ShopFront) -> None:
    delivery.deployed()
    delivery.environment |= {"SMOKE_TOKEN": "expired", "SMOKE_ORDER": "{}"}
    code, said = delivery.run("roll-out", "verify")
    assert code == 1
    assert "POST /orders failed: who is calling?" in said
    assert set(delivery.running().values()) == {OLD}


def test_an_alert_that_pages_somebody_is_a_failure_and_a_ticket_is_none(delivery: Delivery, shop: ShopFront) -> None:
    delivery.left("image", NEW)
    delivery.environment["PROMETHEUS_URL"] = shop.url

    def alert(severity: str) -> str:
        labels = {"alertname": "OrdersStuck", "severity": severity}
        return json.dumps({"data": {"alerts": [{"state": "firing", "labels": labels}]}})

    shop.alerts = alert("ticket")
    assert delivery.run("roll-out", "verify")[0] == 0
    shop.alerts = alert("page")
    code, said = delivery.run("verify")
    assert code == 1
    assert "alerts fire: OrdersStuck" in said


@pytest.mark.parametrize(
    ("step", "name", "left"),
    [
        ("push", "IMAGE_REPOSITORY", {"tag": "1", "scanned": "1"}),
        ("verify", "PUBLIC_URL", {"image": NEW}),
        ("verify", "SMOKE_ORDER", {"image": NEW}),
        ("roll-out", "AWS_REGION", {"image": NEW}),
        ("migrate", "MIGRATIONS", {"image": NEW}),
    ],
)
def test_what_is_not_set_is_named(delivery: Delivery, step: str, name: str, left: dict[str, str]) -> None:
    delivery.environment |= {"SMOKE_TOKEN": "letmein", "PUBLIC_URL": "http://shop.example", "EKS_CLUSTER": "shop"}
    delivery.environment |= {"AWS_REGION": "ap-northeast-2", "MIGRATIONS": "no/such/kustomization"}
    delivery.environment.pop(name, "") if name != "MIGRATIONS" else None
    for file, text in left.items():
        delivery.left(file, text)
    code, said = delivery.run(step)
    assert code == 1
    assert name in said.splitlines()[-2]
    assert not [call for call in delivery.calls("kubectl") if "kustomize" not in call and " get " not in call]


@pytest.mark.parametrize("step", ["scan", "push", "migrate", "roll-out"])
def test_a_step_out_of_order_says_which_comes_first(delivery: Delivery, step: str) -> None:
    code, said = delivery.run(step)
    assert code == 1
    assert "first" in said


@pytest.mark.parametrize("image", [f"{REPOSITORY}:0.2.0", "street12", f"{REPOSITORY}@sha256:12"])
def test_an_image_without_a_digest_is_not_rolled_out(delivery: Delivery, image: str) -> None:
    delivery.environment["IMAGE"] = image
    code, said = delivery.run("roll-out")
    assert code == 1
    assert "has no digest" in said
    assert not delivery.calls("kubectl apply")


def test_a_workload_that_no_stage_names_is_refused_before_anything_is_applied(delivery: Delivery) -> None:
    delivery.left("image", NEW)
    manifests = delivery.overlay / "all.yaml"
    manifests.write_text(manifests.read_text().replace("{name: codec-server}", "{name: worker-loyalty}"))
    code, said = delivery.run("roll-out")
    assert code == 1
    assert "worker-loyalty" in said
    assert not delivery.calls("kubectl apply")


@pytest.mark.parametrize("overlay", ["production", "production-versioned"])
def test_the_shop_s_own_manifests_are_migrated_rolled_out_and_rolled_back(delivery: Delivery, overlay: str) -> None:
    manifests = ROOT / "deploy" / "kubernetes" / "overlays"
    delivery.environment["OVERLAY"] = str(manifests / overlay)
    delivery.environment["MIGRATIONS"] = str(manifests / "production" / "migrate")
    delivery.deployed()
    delivery.tell("stuck-api", NEW)
    code, said = delivery.run("migrate", "roll-out")
    assert code == 1
    jobs = "migrate-delivery migrate-marketing migrate-order namespace"
    assert delivery.applied()[:4] == [jobs, OTHERS, "worker-order", "api"], said
    assert {*delivery.running()} == {*OTHERS.split(), "worker-order", "api"}
    assert set(delivery.running().values()) == {OLD}
    assert not (delivery.state / "open").exists()


def test_a_cluster_of_eks_is_asked_for_by_name(delivery: Delivery) -> None:
    delivery.left("image", NEW)
    delivery.environment |= {"EKS_CLUSTER": "shop", "AWS_REGION": "ap-northeast-2"}
    assert delivery.run("roll-out")[0] == 0
    assert delivery.calls()[0].startswith("aws eks update-kubeconfig --name shop --region ap-northeast-2")


def test_an_unknown_step_is_refused(delivery: Delivery) -> None:
    code, said = delivery.run("gates", "rollout")
    assert code == 1
    assert "there is no step rollout" in said
    assert not delivery.calls()


async def test_the_scripts_are_clean(pytestconfig: pytest.Config) -> None:
    shellcheck = await need(pytestconfig, "shellcheck", lambda: find_program("shellcheck", package="shellcheck"))
    scripts = sorted(PIPELINE.glob("*.sh"))
    checked = await create_subprocess_exec(
        *(shellcheck, "--external-sources", "--source-path=SCRIPTDIR", f"--source-path={ROOT}", *scripts),
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    said, _ = await checked.communicate()
    assert checked.returncode == 0, said.decode()
    sourced = {"settings.sh", "cluster.sh"}
    assert {script.name for script in scripts} == {f"{step}.sh" for step in (*STEPS, "roll-back", "run")} | sourced
    assert all(os.access(script, os.X_OK) for script in scripts if script.name not in sourced)
