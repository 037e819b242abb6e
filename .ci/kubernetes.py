"""What no schema says of packaging/kubernetes.yaml, and its container run by runc. See .ci/kubernetes.

usage: .ci/kubernetes.py ROOT_OF_THE_IMAGE ITS_USER ITS_ENTRYPOINT
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

SECCOMP = Path("/usr/share/containers/seccomp.json")  # of golang-github-containers-common
IN_A_MEBIBYTE = {"Mi": 1, "Gi": 1024}


def expect(condition, message):
    if not condition:
        sys.exit(f"kubernetes: {message}")


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)([MG]i)", quantity).groups()
    return int(number) * IN_A_MEBIBYTE[unit]


def read(path):
    """The three objects by their kinds."""
    objects = [item for item in yaml.safe_load_all(path.read_text()) if item]
    kinds = {item["kind"]: item for item in objects}
    expect(len(objects) == 3 and set(kinds) == {"Deployment", "Service", "PodDisruptionBudget"}, f"it has {kinds.keys()}")
    expect(len({item["metadata"]["name"] for item in objects}) == 1, "the objects have several names")
    return kinds["Deployment"], kinds["Service"], kinds["PodDisruptionBudget"]


def options(container):
    """The server's options, by name."""
    pairs = (word.removeprefix("--").partition("=") for word in container["args"])
    return {name: value for name, _, value in pairs}


def check_objects(deployment, service, budget):
    """Labels, ports, and how many Pods may be missing."""
    spec = deployment["spec"]
    pod = spec["template"]["spec"]
    container, = pod["containers"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = {"Deployment": spec["selector"]["matchLabels"], "Service": service["spec"]["selector"],
                 "PodDisruptionBudget": budget["spec"]["selector"]["matchLabels"],
                 "topologySpreadConstraints": pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]}
    for of, selector in selectors.items():
        expect(selector and selector.items() <= labels.items(), f"the selector of {of} does not match the Pods")
    rolling = spec["strategy"]["rollingUpdate"]
    expect(rolling["maxUnavailable"] == 0 and rolling["maxSurge"] > 0, "an update takes Pods away before it adds one")
    expect(0 < budget["spec"]["maxUnavailable"] < spec["replicas"], "the budget stops each drain, or none")
    spread, = pod["topologySpreadConstraints"]
    expect(spread["whenUnsatisfiable"] == "ScheduleAnyway", "the spread is not soft")

    port, = container["ports"]
    outer, = service["spec"]["ports"]
    expect(outer["targetPort"] in (port["name"], port["containerPort"]), "the Service's targetPort is no port of the Pod")
    bind = options(container)["bind"]
    expect(bind == f"0.0.0.0:{port['containerPort']}", f"the server binds {bind}, not the containerPort")
    expect(outer["port"] == port["containerPort"], "the Service's port is not the one of the documents")


def check_end(pod):
    """TERM must come after preStop, and SIGKILL after the server's own deadline."""
    container, = pod["containers"]
    stop = container["lifecycle"]["preStop"]
    expect(set(stop) == {"sleep"}, "preStop executes something: the image has no other program")
    grace = int(re.fullmatch(r"(\d+)s", options(container)["grace"])[1])
    least = stop["sleep"]["seconds"] + grace + 5
    expect(pod["terminationGracePeriodSeconds"] >= least, f"terminationGracePeriodSeconds is less than {least}")
    for name in ("startupProbe", "readinessProbe"):
        expect(container[name]["exec"]["command"][0] == container["command"][0], f"{name} executes what is not in the image")
    expect("livenessProbe" not in container, "a livenessProbe would end a server that is only busy")


def check_restricted(pod):
    """The Pod Security Standard, restricted, and what goes beyond it."""
    expect(not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")), "it shares a namespace of the node")
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    expect(kinds == {"emptyDir"}, f"volumes of {kinds}")
    outer = pod["securityContext"]
    expect(outer["runAsNonRoot"] is True and outer["runAsUser"] > 0 and outer["runAsGroup"] > 0, "it may run as root")
    expect(outer["seccompProfile"] == {"type": "RuntimeDefault"}, "no seccomp profile of the runtime")
    container, = pod["containers"]
    inner = container["securityContext"]
    expect(set(inner) == {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}, f"the container has {set(inner)}")
    expect(inner["allowPrivilegeEscalation"] is False, "privilege escalation is allowed")
    expect(inner["capabilities"] == {"drop": ["ALL"]}, "it keeps capabilities")
    expect(not any("hostPort" in port for port in container["ports"]), "it has a port of the node")
    expect(inner["readOnlyRootFilesystem"] is True, "its root can be written")
    expect(pod["automountServiceAccountToken"] is False, "it gets a token for the API")
    expect(pod["enableServiceLinks"] is False, "it gets variables that look like options")


def check_image(pod, user, entry):
    """The file and the Dockerfile must agree, and the tag with the version."""
    container, = pod["containers"]
    ids = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    expect(user == ids, f"the image's user is {user}, the Pod's {ids}")
    expect(container["command"] == json.loads(entry)[:1], "the command is not the image's program")
    version = re.search(r'^version = "(.*)"', Path("Cargo.toml").read_text(), re.M)[1]
    expect(container["image"].endswith(f"/prefork-echo:{version}"), f"the image is not of version {version}")


def seccomp():
    """RuntimeDefault: the profile of containers/common, for a container without capabilities."""
    profile = json.loads(SECCOMP.read_text())
    calls = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        if includes.get("caps") or "amd64" not in includes.get("arches", ["amd64"]) or "amd64" in excludes.get("arches", []):
            continue
        calls.append({name: rule[name] for name in ("names", "action", "args", "errnoRet") if rule.get(name)})
    return {"defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"],
            "architectures": ["SCMP_ARCH_X86_64"], "syscalls": calls}


def bundle(pod, image, volume, environment):
    """What a node hands to runc for this container (config.json). The emptyDir is the directory `volume`."""
    container, = pod["containers"]
    outer, inner = pod["securityContext"], container["securityContext"]
    mount, = container["volumeMounts"]
    variables = {item["name"]: item["value"] for item in container["env"]} | environment
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": outer["runAsUser"], "gid": outer["runAsGroup"]}, "cwd": "/",
            "args": container["command"] + container["args"], "capabilities": {},
            "env": [f"{name}={value}" for name, value in variables.items()],
            "noNewPrivileges": not inner["allowPrivilegeEscalation"],
        },
        "root": {"path": str(image), "readonly": inner["readOnlyRootFilesystem"]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": mount["mountPath"], "type": "bind", "source": str(volume), "options": ["rbind", "rw"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"memory": {"limit": mebibytes(container["resources"]["limits"]["memory"]) << 20}},
            "seccomp": seccomp(),
        },
    }


class Container:
    """One that runs, until the end of the `with`."""

    def __init__(self, work, config):
        (work / "config.json").write_text(json.dumps(config))
        self.runc = ["runc", "--root", str(work / "state")]
        self.name = f"prefork-echo-{os.getpid()}"
        self.log = work / "log"
        self.process = subprocess.Popen(
            [*self.runc, "run", "--bundle", str(work), self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        subprocess.run([*self.runc, "delete", "--force", self.name], stderr=subprocess.DEVNULL, check=False)

    def command(self, *words):
        return [*self.runc, "exec", self.name, *words]

    def execute(self, *words, seconds=20):
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=seconds, check=False)

    def probe(self, probe):
        """As the kubelet does: so often, one after the other."""
        for _ in range(probe["failureThreshold"]):
            tried = self.execute(*probe["exec"]["command"], seconds=probe["timeoutSeconds"])
            if tried.returncode == 0:
                return
            time.sleep(min(probe["periodSeconds"], 0.1))
        sys.exit(f"kubernetes: a probe fails: {tried.stderr}\n{self.log.read_text()}")

    def workers(self):
        status = self.execute("/prefork-echo", "status", "--json")
        expect(status.returncode == 0, f"status: {status.stderr}\n{self.log.read_text()}")
        return [worker for worker in json.loads(status.stdout)["workers"] if worker["pid"] is not None]

    def signal(self, name):
        subprocess.run([*self.runc, "kill", self.name, name], check=True)

    def check(self, container):
        """The probes, the sandbox, and as many clients as there may be workers: busy is ready."""
        self.probe(container["startupProbe"])
        self.probe(container["readinessProbe"])
        port = str(container["ports"][0]["containerPort"])
        echo = self.execute("/prefork-echo", "client", port, "hello")
        expect(echo.stdout == "hello\n", f"it does not echo: {echo}")
        most = int(options(container)["max-workers"])
        # Within the limit of memory, in which `bench` is, too.
        load = subprocess.Popen(
            self.command("/prefork-echo", "bench", port, "-m", "stream", "-c", str(most), "-d", "30s", "--json"),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        is_full = lambda: sum(worker["clients"] for worker in self.workers()) == most

        def expect_load():
            """Without it a worker that is free says nothing about the probe."""
            if load.poll() is not None:
                sys.exit(f"kubernetes: {most} clients in bulk have ended too early, with status {load.returncode}: "
                         f"{load.stderr.read()}\n{self.log.read_text()}")

        while not is_full() and load.poll() is None:
            time.sleep(0.02)
        expect_load()
        self.probe(container["readinessProbe"])
        full = is_full()
        expect_load()
        expect(full, "the probe succeeds only when a worker is free")
        load.send_signal(signal.SIGINT)
        why = load.communicate(timeout=20)[1]
        expect(load.returncode == 0, f"{most} clients in bulk: {why}\n{self.log.read_text()}")
        for worker in self.workers():
            layers, uid = worker["sandbox"], worker["uid"]
            expect(layers == ["no_new_privs", "landlock", "seccomp"], f"the sandbox of a worker: {layers}")
            expect(uid == 65534, f"a worker's user is {uid}")
        return port


def run(pod, service, image):
    """Runs it twice on one emptyDir: killed, and begun anew with the variables of a Service."""
    container, = pod["containers"]
    port = service["spec"]["ports"][0]
    name = service["metadata"]["name"].upper().replace("-", "_")
    address = f"tcp://10.0.0.1:{port['port']}"
    links = {f"{name}_SERVICE_HOST": "10.0.0.1", f"{name}_SERVICE_PORT": port["port"], f"{name}_PORT": address,
             f"{name}_SERVICE_PORT_{port['name'].upper()}": port["port"], f"{name}_PORT_{port['port']}_TCP": address,
             f"{name}_PORT_{port['port']}_TCP_ADDR": "10.0.0.1"}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        work.chmod(0o755)
        volume = work / "scoreboard"
        volume.mkdir()
        volume.chmod(0o777)  # as the kubelet makes it
        with Container(work, bundle(pod, image, volume, {})) as server:
            server.check(container)
            used = sum(file.stat().st_size for file in volume.iterdir()) / (1 << 20)
            limit = mebibytes(pod["volumes"][0]["emptyDir"]["sizeLimit"])
            expect(0 < used < limit, f"the emptyDir holds {used} MiB, and its limit is {limit}")
            server.signal("KILL")
            server.process.wait(timeout=10)
        with Container(work, bundle(pod, image, volume, links)) as server:
            port = server.check(container)
            client = subprocess.Popen(server.command("/prefork-echo", "client", port), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            client.stdin.write(b"before TERM\n")
            client.stdin.flush()
            expect(client.stdout.readline() == b"before TERM\n", "it does not echo")
            server.signal("TERM")
            expect(client.communicate(b"after TERM\n", timeout=20)[0] == b"after TERM\n", "a client was cut at TERM")
            status = server.process.wait(timeout=20)
            expect(status == 0, f"status {status} on TERM")
            log = server.log.read_text()
            expect(not log, f"it warns:\n{log}")
            expect(not list(volume.iterdir()), "the scoreboard is left")


def has_cgroups():
    """Whether there are control groups that runc may make, of either version."""
    for hierarchy in Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"):
        group = hierarchy / f"prefork-echo-{os.getpid()}"
        try:
            group.mkdir()
            made = list(group.iterdir())  # The kernel's own files.
            group.rmdir()
        except OSError:
            continue
        if made:
            return True
    return False


image, user, entry = Path(sys.argv[1]), *sys.argv[2:]
deployment, service, budget = read(Path("packaging/kubernetes.yaml"))
pod = deployment["spec"]["template"]["spec"]
check_objects(deployment, service, budget)
check_end(pod)
check_restricted(pod)
check_image(pod, user, entry)
if not has_cgroups():
    print("NOT CHECKED: no control group can be made here, so runc cannot run the container")
    sys.exit(0)
run(pod, service, image)
print("kubernetes.yaml: its container runs under runc, restricted, with its probes and its own sandbox")
