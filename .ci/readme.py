#!/usr/bin/env python3
"""Runs every command of the README, in its order, as a reader would.

- Each line of a block `sh`, and each line after "$ " of a block `console`, must succeed.
- So must each command within the text: what begins with prefork-echo, cargo or scripts/.
- A server that is started stays for the commands after it, until the next one; then
  SIGTERM must end it with status 0.
- `top` gets a terminal, and the key q. What is shown as output isn't compared.
- A block with a loop, or a process in the background, is a script and is run as one.
- Of the Dockerfile the steps are run, with its server as process 1 of a namespace; the
  unit is verified by systemd-analyze, and its server is run.
"""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

root = Path(__file__).resolve().parent.parent
work = Path(tempfile.mkdtemp(prefix="readme-"))
os.environ["CARGO_INSTALL_ROOT"] = str(work)
os.environ["PATH"] = f"{work}/bin:{os.environ['PATH']}"
# Servers of others are not to be found.
os.environ["XDG_RUNTIME_DIR"] = str(work)

# What CI runs in a step of its own, or is itself; and how what takes long is run in short.
ELSEWHERE = {"cargo test", "scripts/compare.sh", "scripts/faults.sh"}
INSTEAD = {
    "cargo doc --no-deps --open": "cargo doc --no-deps",
    "scripts/figures.sh": "scripts/figures.sh --quick",
    "scripts/models.sh": "scripts/models.sh --quick",
}
SERVER = re.compile(r"(cargo run --release --|prefork-echo) -(?!-help|-version)")

server = None
done = set()


def fail(command, why):
    sys.exit(f"the README's `{command}`: {why}")


def anchors(page):
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def check_links():
    """Each relative link of the pages leads to a file, and to a heading if it names one."""
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in link:
                continue
            target, _, anchor = link.partition("#")
            to = page.parent / target if target else page
            if not to.exists() or (anchor and anchor not in anchors(to)):
                sys.exit(f"{page.relative_to(root)}: the link to {link} leads nowhere")
    print(f"the links of {len(pages)} pages lead somewhere")


def stop_server():
    global server
    if server is None:
        return
    pid = int(server.pid_told)
    os.kill(pid, signal.SIGTERM)
    status = server.wait(timeout=20)
    if status != 0:
        fail(server.args, f"status {status} on SIGTERM")
    server = None


def start_server(command):
    """Starts it in the background, and waits until it listens."""
    global server
    stop_server()
    # A group of its own: the command may be cargo's.
    server = subprocess.Popen(
        ["bash", "-c", "exec " + command], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    line = server.stdout.readline()
    told = re.fullmatch(r"listening on \S+ \(pid (\d+), \d+ workers?\)\n", line)
    if not told:
        fail(command, f"no server, but {line!r}")
    server.pid_told = told[1]
    print(f"    {line.strip()}", flush=True)


def run_in_terminal(command):
    """Until it has drawn its picture, and the key q has ended it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execvp("bash", ["bash", "-c", command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen, pressed = b"", False
    while select.select([terminal], [], [], 20)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            break  # The end, on Linux.
        if not pressed and b"q quit" in seen:
            pressed = os.write(terminal, b"q") == 1
    else:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0 or not pressed:
        fail(command, f"status {status}\n{seen.decode(errors='replace')}")


def run(command, script=False):
    command = re.sub(r"\s+#.*", "", command) if not script else command
    command = command.strip()
    if not command or command in done:
        return
    done.add(command)
    print(f"  $ {command}", flush=True)
    if command in ELSEWHERE:
        print("    CI runs it in a step of its own")
        return
    command = INSTEAD.get(command, command)
    if SERVER.match(command) and not script:
        return start_server(command)
    if "PID_OF_A_WORKER" in command:
        workers = subprocess.check_output(["ps", "-o", "pid=", "--ppid", server.pid_told], text=True).split()
        command = command.replace("PID_OF_A_WORKER", workers[0])
    if re.fullmatch(r"prefork-echo top( \S+)?", command):
        return run_in_terminal(command)
    # cargo and the scripts belong to the project; what else leaves files leaves them elsewhere.
    where = root if command.startswith(("cargo", "scripts/")) else work
    result = subprocess.run(
        ["bash", "-c", ("set -eu\n" if script else "") + command],
        cwd=where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )
    if result.returncode != 0:
        fail(command, f"status {result.returncode}\n{result.stdout}")


def run_block(kind, text):
    if kind == "console":
        for line in text.splitlines():
            if line.startswith("$ "):
                run(line[2:])
    elif kind == "sh":
        if re.search(r"&$|^(until|for|while) ", text, re.M):
            run(text, script=True)
        else:
            for line in text.splitlines():
                run(line)
    elif kind == "dockerfile":
        for step in re.findall(r"^RUN (.*)", text, re.M):
            run(step.replace("/src", str(root)).replace("/out", str(work)))
        entry = json.loads(re.search(r"^ENTRYPOINT (.*)", text, re.M)[1])
        stop_server()
        # Without the namespace of processes too, the pid that it tells is 1.
        start_server(" ".join(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *entry]))
        children = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(server.pid)], text=True).split()
        server.pid_told = children[0]
        run(re.search(r"^HEALTHCHECK CMD (.*)", text, re.M)[1])
    elif kind == "ini":
        binary = work / "bin" / "prefork-echo"
        unit = work / "prefork-echo.service"
        unit.write_text(text.replace("/usr/local/bin/prefork-echo", str(binary)))
        run(f"systemd-analyze verify {unit}")
        command = re.search(r"^ExecStart=(.*)", unit.read_text(), re.M)[1]
        os.makedirs("/run/prefork-echo", exist_ok=True)  # its RuntimeDirectory
        start_server(command)
        reload = re.search(r"^ExecReload=(.*)", text, re.M)[1]
        run(reload.replace("$MAINPID", server.pid_told))


check_links()
text = (root / "README.md").read_text()
try:
    # Blocks, and commands within the text, as they come.
    for block in re.finditer(r"```(\w+)\n(.*?)```|`((?:prefork-echo|cargo|scripts/\S+?)(?:\s[^`]*)?)`", text, re.S):
        kind, body, inline = block.groups()
        if kind:
            run_block(kind, body)
        elif not inline.startswith("scripts/") or inline.split()[0].endswith(".sh"):
            run(" ".join(inline.split())) if inline != "prefork-echo" else None
    stop_server()
finally:
    if server is not None:
        server.kill()
    shutil.rmtree(work)
print(f"{len(done)} commands of the README work")
