#!/usr/bin/env python3
"""Runs every command of the pages, README.md and docs/, in their order, as a reader would.

usage: .ci/readme.py [PAGE]...      without a PAGE: all of them, and README's length

- Each line of a block `sh`, and each line after "$ " of a block `console`, must succeed.
- So must each command within the text: what begins with prefork-echo, cargo or scripts/.
- What a block `console` shows as output must be there, numbers aside: that of a command after
  it, that of a server in all that it prints until its end. A line that ends in … goes on. Other
  blocks are examples.
- A server that is started stays for the commands after it, until the next one, or the end of
  the page; then SIGTERM must end it with status 0.
- `top` gets a terminal, and the key q. A block with a loop or & is a script, and is run as one.
- All lessons run side by side with the rest; a single one is not run again.
- Of the Dockerfile the steps are run, with its server as process 1 of a namespace; the
  unit is verified by systemd-analyze, and its server is run.
- Each relative link leads to a file, and to a heading if it names one.
- A Korean page has the blocks of the English one, comments aside.
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
gitconfig = work / "gitconfig"
gitconfig.write_text("[safe]\n\tdirectory = *\n")  # The checkout may be another user's.
os.environ.update({
    "CARGO_INSTALL_ROOT": str(work),
    "GIT_CONFIG_GLOBAL": str(gitconfig),
    "LC_ALL": "C.UTF-8",  # What is shown is English.
    "PATH": f"{work}/bin:{os.environ['PATH']}",
    # Servers of others are not to be found.
    "TMPDIR": str(work),
    "XDG_RUNTIME_DIR": str(work),
})

# What CI runs in a step of its own, or is itself; and how what takes long is run in short.
ELSEWHERE = {"cargo test", "scripts/compare.sh", "scripts/faults.sh", "scripts/machines.sh"}
INSTEAD = {
    "cargo doc --no-deps --open": "cargo doc --no-deps",
    "scripts/figures.sh": "scripts/figures.sh --quick",
    "scripts/models.sh": "scripts/models.sh --quick",
}
# What stands for something that the reader knows.
STANDS_FOR = {"ADDRESS_OF_THIS_REPOSITORY": str(root), " ADDRESS:": " 127.0.0.1:"}
SERVER = re.compile(r"(cargo run --release --|prefork-echo) -(?!-help|-version)")
LESSON = re.compile(r"scripts/lessons.sh (\d+)( --\S+| ko)*")
ALL_LESSONS = re.compile(r"scripts/lessons.sh all .*")
MOST_WORDS = 950

server = None
page = None
done = set()  # with the server that runs
done_once = set()  # on any page: what needs no server, and is the same everywhere
in_background = []


def fail(command, why):
    sys.exit(f"{page.relative_to(root)}: `{command}`: {why}")


def anchors(page):
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def check_links(pages):
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in link:
                continue
            target, _, anchor = link.partition("#")
            to = page.parent / target if target else page
            if not to.exists() or (anchor and anchor not in anchors(to)):
                sys.exit(f"{page.relative_to(root)}: the link to {link} leads nowhere")
    print(f"the links of {len(pages)} pages lead somewhere")


def check_translation(page):
    """Its commands are those of the English page, comments aside: so they run, too."""
    english = root / ("README.md" if page.name == "README.ko.md" else f"docs/{page.name}")
    blocks = [re.sub(r" +# .*", "", block) for block in re.findall(r"```.*?```", page.read_text(), re.S)]
    wanted = [re.sub(r" +# .*", "", block) for block in re.findall(r"```.*?```", english.read_text(), re.S)]
    if blocks != wanted:
        differs = next((block for block in wanted if block not in blocks), "their order")
        sys.exit(f"{page.relative_to(root)} does not have the blocks of the English page:\n{differs}")


def check_length():
    words = len((root / "README.md").read_text().split())
    if words > MOST_WORDS:
        sys.exit(f"README.md has {words} words: more than {MOST_WORDS} belong into docs/")


def without_numbers(line):
    return re.sub(r"0x[0-9a-f]+|\d[\d.,:]*", "0", " ".join(line.split()))


def compare(command, shown, output):
    """Each line that the page shows must have been printed."""
    lines = [without_numbers(line) for line in output.splitlines()]
    for line in filter(str.strip, shown):
        wanted = without_numbers(line)
        is_cut = wanted.endswith("…")
        if not any(line.startswith(wanted[:-1]) if is_cut else line == wanted for line in lines):
            fail(command, f"it does not print {line!r}, but\n{output}")


def stop_server():
    global server
    if server is None:
        return
    stopping, server = server, None
    os.kill(int(stopping.pid_told), signal.SIGTERM)
    status = stopping.wait(timeout=20)
    if status != 0:
        fail(stopping.command, f"status {status} on SIGTERM")
    compare(stopping.command, stopping.shown, stopping.line + stopping.log.read_text())


def start_server(command, shown=()):
    """Starts it in the background, and waits until it listens."""
    global server
    stop_server()
    done.clear()
    log = Path(tempfile.mkstemp(dir=work)[1])
    # A group of its own: the command may be cargo's.
    server = subprocess.Popen(
        ["bash", "-c", "exec " + command], cwd=root, start_new_session=True,
        stdout=subprocess.PIPE, stderr=log.open("w"), text=True,
    )
    server.command, server.shown, server.log = command, shown, log
    server.line = server.stdout.readline()
    told = re.fullmatch(r"listening on \S+ \(pid (\d+), \d+ workers?\)\n", server.line)
    if not told:
        fail(command, f"no server, but {server.line!r}\n{log.read_text()}")
    server.pid_told = told[1]
    print(f"    {server.line.strip()}", flush=True)


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


def begin_lessons(command):
    """All lessons, beside what follows, and apart from its servers."""
    apart = Path(tempfile.mkdtemp(dir=work))
    lessons = subprocess.Popen(
        ["bash", "-c", command], cwd=root, stdin=subprocess.DEVNULL, start_new_session=True,
        stdout=(apart / "output").open("w"), stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(apart), "XDG_RUNTIME_DIR": str(apart)},
    )
    in_background.append((command, page, lessons, apart / "output"))


def finish_lessons():
    global page
    for command, page, lessons, output in in_background:
        status = lessons.wait(timeout=600)
        print(f"  $ {command}\n    {output.read_text().splitlines()[-1]}", flush=True)
        if status != 0:
            fail(command, f"status {status}\n{output.read_text()}")


def is_done(command):
    """With this server, or on any page if no server of the page matters."""
    commands = done_once if command.startswith(("cargo", "scripts/")) and not SERVER.match(command) else done
    if command in commands:
        return True
    commands.add(command)
    return False


def run(command, script=False, shown=()):
    command = re.sub(r"\s+#.*", "", command) if not script else command
    command = command.strip()
    if not command or (is_done(command) and not shown):
        return
    print(f"  $ {command}", flush=True)
    lesson = LESSON.fullmatch(command)
    if lesson:
        if not list(root.glob(f"scripts/lesson-{int(lesson[1]):02}-*.sh")):
            fail(command, "there is no such lesson")
        return
    if ALL_LESSONS.fullmatch(command):
        return begin_lessons(command)
    if command in ELSEWHERE:
        print("    CI runs it in a step of its own")
        return
    command = INSTEAD.get(command, command)
    for word, meaning in STANDS_FOR.items():
        command = command.replace(word, meaning)
    if SERVER.match(command) and not script:
        return start_server(command, shown)
    if "PID_OF_A_WORKER" in command:
        workers = subprocess.check_output(["ps", "-o", "pid=", "--ppid", server.pid_told], text=True).split()
        command = command.replace("PID_OF_A_WORKER", workers[0])
    if re.fullmatch(r"prefork-echo top( (?!--once)\S+)?", command):
        return run_in_terminal(command)
    # What belongs to the project; what else leaves files leaves them elsewhere.
    where = root if command.startswith(("cargo", "scripts/", "find src")) or " packaging/" in command else work
    result = subprocess.run(
        ["bash", "-c", ("set -eu\n" if script else "") + command],
        cwd=where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )
    if result.returncode != 0:
        fail(command, f"status {result.returncode}\n{result.stdout}")
    compare(command, shown, result.stdout)


def run_block(kind, text):
    if kind == "console":
        for command in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, *shown = command.splitlines()
            run(command, shown=shown)
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
    elif kind == "ini" and "[Socket]" in text:
        unit = work / "prefork-echo.socket"  # The service stands before it on the page.
        unit.write_text(text)
        run(f"systemd-analyze verify {unit}")
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


def run_page(path):
    """Its blocks, and commands within the text, as they come."""
    global page
    page = path
    done.clear()
    print(f"{page.relative_to(root)}:", flush=True)
    command = r"`((?:prefork-echo|cargo|scripts/\S+?)(?:\s[^`]*)?)`"
    for block in re.finditer(r"```(\w+)\n(.*?)```|" + command, page.read_text(), re.S):
        kind, body, inline = block.groups()
        if kind:
            run_block(kind, body)
        elif inline != "prefork-echo" and (not inline.startswith("scripts/") or inline.split()[0].endswith(".sh")):
            run(" ".join(inline.split()))
    stop_server()


pages = [Path(name).resolve() for name in sys.argv[1:]]
try:
    if pages:
        check_links(pages)
        subprocess.run("cargo install --quiet --path . --locked", shell=True, cwd=root, check=True)
    else:
        check_length()
        check_links([*root.glob("*.md"), *root.glob("docs/**/*.md")])
        for page in [root / "README.ko.md", *root.glob("docs/ko/*.md")]:
            check_translation(page)
        # The first one installs the program.
        pages = [root / "README.md", *sorted(root.glob("docs/*.md"))]
    for path in pages:
        run_page(path)
    finish_lessons()
finally:
    for process in [server, *(lessons for _, _, lessons, _ in in_background)]:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    shutil.rmtree(work)
print(f"the commands of {len(pages)} pages work")
