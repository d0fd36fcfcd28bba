"""Ansible module: one step of a roll, on the host that serves, with the key that lies there.

Needs nothing there but Python 3.8 or newer. `look`: what is served, what is delivered; `switch`: to
the model, gated, taken back by itself where the gate fails; `back`: to what was served before, by
the note that `switch` left; `tidy`: drop the note. The key never leaves the host.
"""

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: pillops_roll
short_description: One step of a roll, on the host that serves
description: See the head of the file; fleet/roll.yml is its only caller.
author: PillSnap Ops
options: {}
"""

ASK_S = 10.0  # for /version
PREDICT_S = 30.0
TOLERANCE = 0.02  # of the golden probability
_KEY = re.compile(r"""(?m)^(?:export )?API_KEY=["']?([^"'\s]+)""")
_BOUNDARY = "pillops-roll"
_CHUNK_BYTES = 1 << 20


class RefusedError(Exception):
    """What ends a step; its message is one line for the operator.

    `is_back`: the host certainly serves what it served before.
    """

    def __init__(self, message, is_back=False):
        super().__init__(message)
        self.is_back = is_back


class Service:
    """The service of this host, asked over HTTP with the key of its `.env`."""

    def __init__(self, asked):
        self._url = asked["url"].rstrip("/")
        self._env_file = Path(asked["env_file"])
        try:
            found = _KEY.findall(self._env_file.read_text(errors="replace"))
        except OSError as error:
            raise RefusedError(f"{self._env_file}: cannot be read: {error.strerror}") from None
        self._key = found[-1] if found else ""
        # No proxy: the service is asked where it runs.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, route, timeout_s, body=None, kind="application/json"):
        """Return the status (0: no answer) and the JSON object that came, or `{"detail": why}`."""
        headers = {"X-API-Key": self._key, "Content-Type": kind}
        request = urllib.request.Request(self._url + route, data=body, headers=headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        except (OSError, ValueError) as error:
            return 0, {"detail": str(getattr(error, "reason", error))}
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        return status, said if isinstance(said, dict) else {"detail": "no JSON object"}

    def predict(self, image):
        """Return what `/predict` says of an image file."""
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; '
        kind = "image/png" if image.suffix.lower() == ".png" else "image/jpeg"
        head += f'filename="{image.name}"\r\nContent-Type: {kind}\r\n\r\n'
        body = head.encode() + image.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
        form = f"multipart/form-data; boundary={_BOUNDARY}"
        return self.ask("/predict", PREDICT_S, body, form)[1]


class Step:
    """One step, as it was asked for."""

    def __init__(self, asked):
        self.asked = asked
        self.model = Path(asked["model"])
        self.service = Service(asked)
        self.note = Path(asked["env_file"]).with_name(f".roll-{asked['host']}.json")

    def look(self):
        """Return what is served, what a failure brings back, and which files are not there."""
        live = self._serves()
        note = self._read_note()
        says_digest = bool(live["digest"])
        is_there = (
            live["digest"] == self.asked["digest"]
            if says_digest
            else (live["path"] == str(self.model))
        )
        before = note.get("back_to") if is_there else None
        if before is None:  # nothing, where it serves the model without a roll having brought it
            before = {} if is_there and says_digest else live
        serves_it = is_there and says_digest  # a path alone proves nothing: switched again
        return {
            "live": live,
            "serves_it": serves_it,
            "was_changed": is_there and note.get("digest") == self.asked["digest"],
            "back_to": before,
            "lacking": [] if serves_it else self._find_lacking(),
        }

    def switch(self):
        """Switch and gate; go back where the gate fails, and say whether that went well."""
        seen = self.look()
        lacking = ", ".join(seen["lacking"])
        if lacking:
            raise RefusedError(f"{lacking}: missing there, or another file", is_back=True)
        note = {"digest": self.asked["digest"], "back_to": seen["back_to"]}
        hidden = self.note.with_suffix(".part")
        try:
            with os.fdopen(
                os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
            ) as out:
                json.dump(note, out)
                out.flush()
                os.fsync(out.fileno())
            hidden.replace(self.note)
        except OSError as error:
            hidden.unlink(missing_ok=True)
            why = f"{self.note}: cannot be written: {error.strerror}"
            raise RefusedError(why, is_back=True) from None
        status, answer = self._reload(str(self.model))
        wrong = self._find_wrong(status, answer)
        if wrong:
            self.back(wrong + "; ")
            raise RefusedError(wrong, is_back=True)
        return {"changed": True}

    def back(self, why=""):
        """Go back to what the note names, where there is one; `is_back`: the service answers."""
        before = self._read_note().get("back_to")
        if before:
            field = "digest" if before["digest"] else "path"
            try:
                is_back = self._serves()[field] == before[field]
                if not is_back:
                    self._reload(before["path"])
                    is_back = self._serves()[field] == before[field]
            except RefusedError:
                is_back = False
            if not is_back:
                raise RefusedError(f"{why}it does not serve {before['path']} again")
            return {**self.tidy(), "is_back": True}
        try:
            self._serves()
        except RefusedError:
            return {**self.tidy(), "is_back": False}
        return {**self.tidy(), "is_back": True}

    def tidy(self):
        """Drop the note."""
        is_there = self.note.exists()
        self.note.unlink(missing_ok=True)
        return {"changed": is_there}

    def _serves(self):
        status, answer = self.service.ask("/version", ASK_S)
        named = [self.asked["digest_field"], self.asked["path_field"]]
        digest, path = (answer.get(name) or "" for name in named)
        if status != 200 or not (digest or path):
            said = answer.get("detail", f"neither {named[0]} nor {named[1]} names a model")
            raise RefusedError(f"{self.asked['url']}/version: {status or 'no answer'} {said}")
        return {"path": path, "digest": digest}

    def _reload(self, path):
        body = json.dumps({self.asked["request_field"]: path}).encode()
        return self.service.ask("/reload", self.asked["timeout_s"], body)

    def _find_wrong(self, status, answer):
        """Return what the gate has against the switch that was answered so, or nothing."""
        golden = self.asked["golden"]
        try:
            live = self._serves()
        except RefusedError:
            live = {"path": "nothing", "digest": ""}
        serves, wanted = (
            (live["digest"][:12], self.asked["digest"][:12])
            if live["digest"]
            else (live["path"], str(self.model))
        )
        said = self.service.predict(self.model.parent / golden["image"])
        expected = golden["probabilities"][golden["class_id"]]
        try:
            is_near = abs(float(said["confidence"]) - expected) <= TOLERANCE
        except (KeyError, TypeError, ValueError):
            is_near = False
        is_model = live["digest"] == self.asked["digest"] if live["digest"] else serves == wanted
        if is_model and is_near and said.get("class_id") == golden["class_id"]:
            return ""
        return (
            f"/reload answered {status or 'nothing'} {answer.get('detail', '')}; "
            f"/version says {serves}, wanted {wanted}; "
            f"{golden['image']} is class {said.get('class_id', '?')}, wanted {golden['class_id']}"
        )

    def _find_lacking(self):
        folder = self.model.parent
        wanted = self.asked["files"]
        return [one["path"] for one in wanted if _hash(folder / one["path"]) != one["sha256"]]

    def _read_note(self):
        try:
            said = json.loads(self.note.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            raise RefusedError(
                f"{self.note}: cannot be read; look what it says, then remove it"
            ) from None
        return said if isinstance(said, dict) else {}


def _hash(path):
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def main():
    """Do what the playbook asks for."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "step": {"choices": ["look", "switch", "back", "tidy"], "required": True},
            "host": text,
            "url": text,
            "env_file": text,
            "model": text,
            "digest": text,
            "request_field": text,
            "path_field": text,
            "digest_field": text,
            "timeout_s": {"type": "float", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "golden": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    step = module.params["step"]
    try:
        if module.check_mode and step != "look":
            module.exit_json(changed=step == "switch")
        module.exit_json(**{"changed": False, **getattr(Step(module.params), step)()})
    except RefusedError as error:
        module.fail_json(msg=str(error), is_back=error.is_back)


if __name__ == "__main__":
    main()
