"""A page in headless Chromium, over its debugging pipe: real keys, its console, its network requests."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
]


class Page:
    """Open a file; ``evaluate`` runs JavaScript in it, ``press`` a key, ``events`` holds what happened."""

    def __init__(
        self, file: Path, profile: Path, *, width: int = 1100, dark: bool = False, options: tuple[str, ...] = ()
    ) -> None:
        self.file, self.profile, self.width, self.dark, self.options = file, profile, width, dark, options
        self.events: list[dict[str, Any]] = []
        self._count = 0
        self._session: str | None = None

    def __enter__(self) -> "Page":
        read_child, self._out = os.pipe()
        self._in, write_child = os.pipe()
        # Chromium reads descriptor 3 and writes 4
        redirect = f'exec "$@" 3<&{read_child} 4>&{write_child}'
        command = [str(EXECUTABLE), *_OPTIONS, *self.options, f"--user-data-dir={self.profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "chromium", *command],
            pass_fds=(read_child, write_child),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_child)
        os.close(write_child)
        self._buffer = b""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        metrics = {"width": self.width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Page.navigate", url=self.file.as_uri())
        self._wait_for("Page.loadEventFired")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def evaluate(self, script: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def complaints(self) -> list[str]:
        """Errors and warnings on the console, and exceptions."""
        said = [e["params"]["entry"]["text"] for e in self.events if e["method"] == "Log.entryAdded"]
        called = [e["params"]["args"] for e in self.events if e["method"] == "Runtime.consoleAPICalled"]
        thrown = [e["params"]["exceptionDetails"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        return [*said, *map(str, called), *map(str, thrown)]

    def requests(self) -> list[str]:
        """Addresses that the page asked for, itself and its data: URIs aside."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:") and url != self.file.as_uri()]

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _wait_for(self, event: str) -> None:
        until = time.monotonic() + 40
        while not any(e.get("method") == event for e in self.events):
            assert time.monotonic() < until, f"no {event}"
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._in, 1 << 20)
            if not read:
                raise OSError("Chromium has gone")
            self._buffer += read
        line, self._buffer = self._buffer.split(b"\0", 1)
        content: dict[str, Any] = json.loads(line)
        return content
