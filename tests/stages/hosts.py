"""Two pretended machines on this one: network namespaces with a wire between them and names of their own."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

ADDRESSES = {"one": "10.77.0.1", "two": "10.77.0.2"}


def available() -> bool:
    """Whether this user may make network namespaces here."""
    if shutil.which("ip") is None or shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, check=False).returncode == 0


class Host:
    """One of the machines; files are those of this one."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name, self.address, self._namespace = name, ADDRESSES[name], namespace

    def command(self, *command: str) -> tuple[str, ...]:
        """The command that runs ``command`` there."""
        renamed = ("unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh")
        return ("ip", "netns", "exec", self._namespace, *renamed, *command)

    def end_all(self) -> None:
        """Kill every process of this machine at once."""
        listed = subprocess.run(["ip", "netns", "pids", self._namespace], capture_output=True, text=True, check=True)
        for process in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """The machines "one" and "two", which know each other by name; both end with the block."""
    one, two = hosts = [Host(name, f"sglr-{os.getpid()}-{name}") for name in ADDRESSES]
    known = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
    etc = Path("/etc/netns")
    with contextlib.ExitStack() as stack:
        for host in hosts:
            _ip("netns", "add", host._namespace)
            stack.callback(_ip, "netns", "delete", host._namespace)
            folder = etc / host._namespace
            folder.mkdir(parents=True)
            stack.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(known)  # lies over /etc/hosts there
        _ip(
            "-n", one._namespace, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", two._namespace
        )
        for host in hosts:
            _ip("-n", host._namespace, "address", "add", f"{host.address}/24", "dev", "wire")
            for link in ("lo", "wire"):
                _ip("-n", host._namespace, "link", "set", link, "up")
        yield one, two


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
