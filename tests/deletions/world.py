"""An experiment with its services, clocks, persons and disks, in which anything may go wrong.

What is wanted is written down here as it is made; `needs` judges by that, and never asks the code
that it judges.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from opslib.core import formatting
from opslib.core.errors import OpsError
from opslib.core.files import link_atomic, write_bytes_atomic
from opslib.core.formatting import stamp
from opslib.core.lineage import record_lineage
from opslib.core.served import ServedModel, ServedState, read_served_state, served_state_path
from opslib.ops.release import build, packing
from opslib.serving import reachable
from opslib.serving.tenant import Tenant
from opslib.upkeep import disk
from opslib.upkeep.maintain_command import maintain
from tests.deletions.faults import FileLayer
from tests.deletions.things import DAY_S, Aged, Clock, Fate, Instance, Model, Outcome, Release
from tests.upkeep.places import tiny_model, write_field

KEEP_ONNX, KEEP_RELEASES = 2, 2
_real_time = time.time
_LINEAGE = record_lineage()


@dataclass
class World:
    """Everything below one folder; `shared` models lie on a file server with a clock of its own."""

    root: Path
    shared: bool = False
    clock: Clock = field(default_factory=Clock)
    full: bool = False
    instances: list[Instance] = field(default_factory=list)
    models: dict[Path, Model] = field(default_factory=dict)
    releases: dict[Path, Release] = field(default_factory=dict)
    aged: list[Aged] = field(default_factory=list)
    person: dict[Path, bytes | str] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        share = self.root / "share" / "export"
        places = (("a", "one", 8000), ("b", "one", 8001), ("c", "two", 8000))
        for name, host, port in places if self.shared else places[:1]:
            folder = self.root / name
            export = share if self.shared else folder / "exp" / "export"
            for one in (export, folder / "exp" / "checkpoints", folder / "exp" / "logs"):
                one.mkdir(parents=True, exist_ok=True)
            instance = Instance(name, host, port, folder, export)
            instance.config_path.write_text(
                "paths: {exp_dir: exp, data_root: images, report_dir: reports}\n"
                f"export: {{out_dir: {export}}}\nclient: {{url: 'http://127.0.0.1:{port}'}}\n"
                f"maintenance: {{keep_onnx: {KEEP_ONNX}, disks: [/]}}\n"
                f"release: {{keep: {KEEP_RELEASES}, threads: 1}}\n"
            )
            (folder / ".env.example").write_text("")
            self.instances.append(instance)
        self.settle(0.0)

    @property
    def export(self) -> Path:
        """The folder of the models."""
        return self.instances[0].export

    @cached_property
    def layer(self) -> FileLayer:
        """The file layer of this world."""
        return FileLayer(self.root, self.date_of)

    def date_of(self, path: str) -> float:
        """The date that a file gets which is written now."""
        on_server = path.startswith(f"{self.root}/share/")
        return self.clock.true_s if on_server else self.clock.shown_s

    def run(self, job: Callable[[], Any], fate: Fate | None = None, host: str = "one") -> Outcome:
        """Let a process of its own do a job; a fault that is none of ours is raised."""
        fate = fate or Fate()
        began = _real_time()
        self.clock.true_s += 61.0
        self._renew_leases()
        error, said = None, io.StringIO()
        full = 0 if self.full else fate.full_from
        with ExitStack() as stack:
            for patch in self._patches(host):
                stack.enter_context(patch)
            stack.enter_context(contextlib.redirect_stdout(said))
            stack.enter_context(contextlib.redirect_stderr(said))
            with self.layer.process(dies_at=fate.dies_at, full_from=full, torn=fate.torn) as life:
                try:
                    job()
                except OpsError as caught:
                    error = caught.with_traceback(None)
        self.settle(began)
        return Outcome(life, None if life.dead else error, said.getvalue())

    def _patches(self, host: str) -> Iterator[contextlib.AbstractContextManager[Any]]:
        clock = mock.Mock(wraps=datetime)
        clock.now = self.clock.now
        yield mock.patch.object(formatting, "datetime", clock)
        yield mock.patch.object(time, "time", lambda: self.clock.shown_s)
        yield mock.patch.object(time, "sleep", self.clock.sleep)
        yield mock.patch.object(platform, "node", lambda: host)
        yield mock.patch.object(reachable, "request", partial(self._reply, host))
        # What Git, df and the installed packages say is the same each time and takes its time.
        yield mock.patch.object(disk, "_run_df", lambda mounts: "")
        yield mock.patch.object(build, "record_lineage", lambda: _LINEAGE)
        yield mock.patch.object(build, "git_sha", lambda folder: "nogit")
        yield mock.patch.object(packing, "git_dirty", lambda folder: None)

    def _reply(self, asker: str, url: str, timeout_s: float, **_: object) -> tuple[int, bytes]:
        """What is answered to the host `asker`: nobody listens, no answer, one that says nothing,
        or the truth."""
        parts = urlsplit(url)
        host = asker if parts.hostname == "127.0.0.1" else parts.hostname
        found = [one for one in self.instances if (one.host, one.port) == (host, parts.port)]
        model = found[0].serving if found else None
        if model is None or found[0].answer == "down":
            raise ConnectionRefusedError(111, "Connection refused")
        if found[0].answer == "hung":
            raise TimeoutError("timed out")
        if found[0].answer == "mute":
            return 200, b"<html>Sign in</html>"
        body = {"model_path": str(model.path), "model_sha256": model.digest}
        return 200, json.dumps(body).encode()

    def _renew_leases(self) -> None:
        """What each running service does every minute."""
        for instance in self.instances:
            for path in instance.leases if instance.answer != "down" else ():
                moment = self.date_of(str(path))
                os.utime(path, (moment, moment))

    def settle(self, since_s: float) -> None:
        """Date what the layer can't, folders and links made since then, by this world's clocks."""
        now_s = _real_time() + 1.0
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = f"{folder}/{name}"
                if since_s <= os.lstat(path).st_mtime <= now_s:
                    moment = self.date_of(path)
                    os.utime(path, (moment, moment), follow_symlinks=False)

    def put(self, path: Path, data: bytes, days: float = 0.0) -> Path:
        """Write a file as somebody who is no part of the product does, some days ago."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        moment = self.date_of(str(path)) - days * DAY_S
        os.utime(path, (moment, moment))
        return path

    def leave(self, path: Path, days: float, limit_days: float) -> None:
        """Write something that may go when it is old; a clock that is behind makes it look so."""
        data = f"{path.name} of {self.clock.true_s}\n".encode()
        self.put(path, gzip.compress(data) if path.suffix == ".gz" else data, days)
        made_s = self.clock.true_s - days * DAY_S
        limit = limit_days if self.clock.error_s > -DAY_S else 0.0
        self.aged.append(Aged(path, data, made_s, limit, path.suffix == ".out"))

    def next_number(self) -> int:
        """A number that grows with each thing made."""
        self.made += 1
        return self.made

    # What the product's writers make

    def export_model(
        self, *, weights: bool, card: bool, link: bool, checkpoint: str | None, fate: Fate
    ) -> Outcome:
        """Export a model: its weights and card first, then itself, then the link."""
        number = self.next_number()
        name = f"model-{stamp(self.clock.now())}-{number:07x}"
        path = self.export / f"{name}.onnx"
        locations = (f"{name}.onnx.data",) if weights else ()
        files = {path.with_name(one): f"weights {number}".encode() for one in locations}
        if card:
            content = {
                "backbone": "none",
                "num_classes": 2,
                "ckpt_path": checkpoint,
                "onnx_path": str(path),
                "exported_at_utc": self.clock.now().isoformat(timespec="seconds"),
                "input_shape": ["N", 3, 8, 8],
            }
            files[path.with_suffix(".json")] = json.dumps(content).encode()
        files[path] = tiny_model(*locations) + write_field(2, f"n{number}".encode())
        model = Model(path, files, checkpoint if card else None, number)

        def job() -> None:
            for one, data in files.items():
                write_bytes_atomic(one, data)
            if link:
                link_atomic(self.export / "latest.onnx", path.name)

        outcome = self.run(job, fate)
        if path.exists():
            self.models[path] = model
        return outcome

    def serve(self, instance: Instance, model: Model, fate: Fate) -> Outcome:
        """Switch a service to a model as a reload does; one that is down is started before."""

        def job() -> None:
            config = instance.config
            tenant = instance.tenant = instance.tenant or self._start(instance)
            tenant.announce(model.path)
            before = read_served_state(config)
            served = ServedModel(
                path=model.path,
                sha256=model.digest,
                version_tag=model.path.stem,
                generation=(before.current.generation if before else 0) + 1,
                switched_at_utc=self.clock.now().isoformat(timespec="seconds"),
            )
            state = before.followed_by(served) if before else ServedState(current=served)
            state.write(served_state_path(config))
            instance.answer, instance.serving = "up", model
            tenant.announce(None)

        outcome = self.run(job, fate, instance.host)
        if outcome.life.dead:
            self.kill(instance)
        return outcome

    def _start(self, instance: Instance) -> Tenant:
        """A service's leases, without the thread that renews them: the world does."""
        env_file = instance.folder / ".env"
        settings: Any = SimpleNamespace(
            config=instance.config,
            kind=SimpleNamespace(pin="MODEL_PATH", root=instance.folder),
            pinned=instance.pin,
            env_file=env_file,
        )
        generations: Any = _Serving(instance)
        return Tenant(settings, generations, "0.0.0.0", instance.port)

    def stop(self, instance: Instance) -> Outcome:
        """End a service in order."""
        tenant = instance.tenant or self._start(instance)
        outcome = self.run(lambda: tenant.__exit__(None, None, None), host=instance.host)
        self.kill(instance)
        return outcome

    def kill(self, instance: Instance) -> None:
        """End a service as SIGKILL does."""
        instance.answer, instance.serving, instance.tenant = "down", None, None

    def maintain(self, instance: Instance, fate: Fate, *, sure: bool = True) -> Outcome:
        """A round of maintenance; a person who looks at a right clock may say that it is right."""
        right = sure and not self.clock.error_s
        work = partial(maintain, config=instance.config_path, clock_is_right=right)
        outcome = self.run(work, fate, instance.host)
        if not outcome.life.dead and abs(self.clock.error_s) < DAY_S:
            instance.was_cleaned |= "--clock-is-right" not in outcome.said
        return outcome

    def release(self, instance: Instance, fate: Fate) -> Outcome:
        """Release the models of an experiment; the trial in a child process alone is left out."""
        models = tuple(one for one in self.models.values() if one.path.is_file())
        request = build.ReleaseRequest(
            load_models=False, allow_missing_metrics=True, environment={}
        )
        outcome = self.run(lambda: build.build_release(instance.config, request), fate)
        for path in sorted(instance.config.releases_dir.glob("release-*.tar.gz")):
            if path not in self.releases:
                made_s = self.clock.shown_s
                self.releases[path] = Release(path, self.next_number(), made_s, models)
        return outcome


@dataclass(frozen=True)
class _Serving:
    """What a service has in memory, as far as its leases want to know."""

    instance: Instance

    @property
    def current(self) -> Any:
        return SimpleNamespace(model=self.instance.serving) if self.instance.serving else None
