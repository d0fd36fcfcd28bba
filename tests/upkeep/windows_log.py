"""A rotation by the Windows script on Linux: the log of a program that appends, and runs of it.

Linux has no NT file sharing and no NtSuspendProcess: the way under a writer is chosen by hand, and
the writer is paused by a signal.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PWSH = ("pwsh", "-NoProfile", "-NonInteractive", "-File")
MEBIBYTE = 1024 * 1024
MESSAGES = (
    "GET https://api.pillsnap.co.kr/health HTTP/1.1",
    "POST https://api.pillsnap.co.kr/predict HTTP/1.1",
    "200 OK",
    "Unable to reach the origin service: dial tcp 127.0.0.1:8000: connect: connection refused",
    "Failed to serve tunnel connection",
    "Registered tunnel connection",
)

# The open file is the shell's, which really appends: .NET on Linux only begins at the end.
WRITER = r"""
param([string]$End)
$handle = New-Object Microsoft.Win32.SafeHandles.SafeFileHandle([IntPtr]3, $true)
$log = New-Object System.IO.FileStream($handle, [System.IO.FileAccess]::Write, 1)
$number = 0
[Console]::Out.WriteLine('writing')
while (-not [System.IO.File]::Exists($End)) {
    foreach ($turn in 1..20) {
        $number += 1
        $bytes = [System.Text.Encoding]::ASCII.GetBytes("writer $number INF a line of the writer`n")
        $log.Write($bytes, 0, $bytes.Length)
    }
    [System.Threading.Thread]::Sleep(10)
}
[Console]::Out.WriteLine($number)
"""

ROTATION = r"""
param([string]$Script, [string]$Log, [int]$Writer)
. $Script
function Invoke-RenameAlone { return $false }
$unpaused = ${function:Invoke-LastLook}
function Invoke-LastLook {
    param([System.IO.Stream]$Log, [System.IO.Stream]$Copy, [object]$Writer)
    $id = $script:Writer
    if ($id -eq 0) { return (& $unpaused -Log $Log -Copy $Copy -Writer $null) }
    try {
        /bin/kill -STOP $id
        while ([System.IO.File]::ReadAllText("/proc/$id/stat") -notmatch '\) T ') { }
        Copy-Rest -From $Log -To $Copy
        $Log.SetLength(0)
    }
    finally {
        /bin/kill -CONT $id
    }
}
$settings = @{
    LogPath = $Log; ServiceName = ''; NoPause = $false; DryRun = $false
    Policy = @{ max_bytes = 1; max_days = 7; keep = 1000 }
}
[Console]::Out.WriteLine('begun')
$watch = [System.Diagnostics.Stopwatch]::StartNew()
$code = Invoke-Rotation -Settings $settings -Ask { $true }
$elapsed = $watch.Elapsed.TotalSeconds
$status = [System.IO.File]::ReadAllText('/proc/self/status')
$peak = [regex]::Match($status, 'VmHWM:\s+(\d+)').Groups[1].Value
[Console]::Out.WriteLine("{""code"": $code, ""duration_s"": $elapsed, ""peak_kib"": $peak}")
"""


class WindowsLog:
    """A log that a program of its own appends to, and rotations of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cloudflared"
        self.log = self.folder / "cloudflared.log"
        self.writer: subprocess.Popen[str]
        self._rotation = folder / "rotation.ps1"
        self._rotation.write_text(ROTATION)
        self._filled = 0
        self._written = 0

    def fill(self, megabytes: int) -> None:
        """Append lines like those of cloudflared, in one write that the kernel does not divide."""
        rng = random.Random(self._filled)
        lines, size = list[str](), 0
        while size < megabytes * MEBIBYTE:
            self._filled += 1
            minute, second = divmod(self._filled // 50 % 3600, 60)
            fields = {
                "level": rng.choice(("debug", "info", "error")),
                "event": rng.randrange(3),
                "ip": f"198.41.200.{rng.randrange(256)}",
                "connIndex": rng.randrange(4),
                "time": f"2026-11-29T03:{minute:02d}:{second:02d}Z",
                "cfRay": f"{rng.getrandbits(64):016x}-ICN",
                "message": rng.choice(MESSAGES),
            }
            lines.append(f"fill {self._filled} {json.dumps(fields)}\n")
            size += len(lines[-1])
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, "".join(lines).encode())
        os.fsync(descriptor)
        os.close(descriptor)

    def start_rotation(self, *, pause: bool = True) -> subprocess.Popen[str]:
        """Start a run and return it once the engine is up."""
        script = str(ROOT / "scripts" / "rotate_logs.ps1")
        paused = str(self.writer.pid if pause else 0)
        command = [*PWSH, str(self._rotation), script, str(self.log), paused]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        return run

    def rotate(self, *, pause: bool = True) -> dict[str, Any]:
        """Make one run to its end; return its exit code, its time and its memory."""
        out, _ = self.start_rotation(pause=pause).communicate()
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def kill(self, run: subprocess.Popen[str]) -> None:
        """Kill a run; a writer that it paused goes on, as the watch sees to on Windows."""
        run.kill()
        run.communicate()
        self.writer.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End the writer, and take down how much it wrote."""
        (self.folder.parent / "end").touch()
        out, _ = self.writer.communicate()
        self._written = int(out.splitlines()[-1])

    def count(self) -> tuple[int, int]:
        """Return how many lines are lost, and how many are there more than once."""
        seen = Counter[bytes]()
        paths = [self.log, *self.folder.glob("*.gz")]
        for path in (one for one in paths if one.exists()):
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                seen.update(re.findall(rb"(?m)^(?:fill|writer) \d+ ", file.read()))
        wanted = self._filled + self._written
        return wanted - len(seen), sum(count > 1 for count in seen.values())


@contextmanager
def open_log(folder: Path) -> Iterator[WindowsLog]:
    """Yield a log that a program appends to, begun and ended with the block."""
    made = WindowsLog(folder)
    made.folder.mkdir(parents=True)
    script = folder / "writer.ps1"
    script.write_text(WRITER)
    command = " ".join([*PWSH, f"'{script}'", f"'{folder / 'end'}'"])
    shell = ["sh", "-c", f"exec {command} 3>>'{made.log}'"]
    made.writer = subprocess.Popen(shell, stdout=subprocess.PIPE, text=True)
    try:
        assert made.writer.stdout is not None
        made.writer.stdout.readline()
        yield made
    finally:
        made.writer.kill()
        made.writer.wait()
