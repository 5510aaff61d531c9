"""cloud-init part handler that adds this machine to Commissaire.

cloud-init calls it early, before it makes host keys and users and before sshd
runs. So it keeps a copy of itself among the scripts that cloud-init runs at the
end of the boot, and the copy does the work.
"""
import base64
import http.client
import json
import os
import pwd
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

SCRIPTS = "/var/lib/cloud/instance/scripts"
HOST_KEYS = "/etc/ssh/ssh_host_%s_key.pub"
SUDOERS = "/etc/sudoers.d"
PATIENCE = 300  # seconds until a server that does not answer is given up
handler_version = 2


class Failed(Exception):
    """Registration is given up; the text says why."""


def list_types():
    return ["text/x-commissaire-host"]


def handle_part(data, ctype, filename, payload, frequency=None):
    if ctype not in list_types():
        return
    try:
        host = parse(payload)
        if os.path.isdir(SCRIPTS):
            defer(host)
        else:
            join(host)
    except Exception as error:  # a boot must not stop over it
        say("registration failed: %s" % error)


def say(text):
    text = "Commissaire %s" % text
    print(text.encode("ascii", "backslashreplace").decode())  # a boot often has no locale
    sys.stdout.flush()


def parse(payload):
    if isinstance(payload, bytes):
        payload = payload.decode("utf-8")
    try:
        host = json.loads(payload)
    except ValueError:
        raise Failed("the host part is not JSON")
    if not isinstance(host, dict) or not host.get("endpoint"):
        raise Failed("the host part must be a JSON object with an endpoint")
    return host


def write(path, content, mode):
    """Replaces a file. O_EXCL: no link of a user's making is followed."""
    new = path + ".new"
    if os.path.lexists(new):
        os.remove(new)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
        f.write(content)
    os.chmod(new, mode)
    os.rename(new, path)


def defer(host):
    with open(__file__, "rb") as f:
        source = f.read().decode("utf-8")
    text = "#!%s\n%s\n\nif __name__ == '__main__':\n    main(%s)\n" % (
        sys.executable or "/usr/bin/python3", source, repr(json.dumps(host)))
    write(os.path.join(SCRIPTS, "commissaire-join"), text.encode("utf-8"), 0o700)
    say("registration follows at the end of the boot")


def main(text):
    """Runs as the script; exit code 1 shows in 'cloud-init status'."""
    try:
        join(json.loads(text))
    except Exception as error:
        say("registration failed: %s" % error)
        say("tries again when root runs %s" % __file__)
        sys.exit(1)
    os.remove(__file__)  # it holds secrets


def join(host):
    user = host.get("remote_user") or "root"
    add_user(user)
    body = {"remote_user": user}
    if host.get("cluster"):
        body["cluster"] = host["cluster"]
    headers = {"Content-Type": "application/json"}
    if host.get("join_token"):
        let_in(host, user, host["public_key"].encode("utf-8"))
        body["host_key"] = host_key()
        headers["Authorization"] = "Bearer " + host["join_token"]
    else:
        path = host.get("ssh_key_path") or "/root/.ssh/id_rsa"
        public, private = key_pair(path)
        let_in(host, user, public)
        body["ssh_priv_key"] = base64.b64encode(private).decode()
        if host.get("username") and host.get("password"):
            pair = "%s:%s" % (host["username"], host["password"])
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode("utf-8")).decode()
    register(host, json.dumps(body).encode("utf-8"), headers)


def add_user(user):
    if user == "root":
        return
    try:
        pwd.getpwnam(user)
    except KeyError:
        subprocess.check_call(["useradd", "--create-home", "--", user])
    if os.path.isdir(SUDOERS):  # sudo skips names with a dot
        name = "commissaire-" + user.replace(".", "_")
        rule = "%s ALL=(ALL) NOPASSWD: ALL\n" % user
        write(os.path.join(SUDOERS, name), rule.encode("utf-8"), 0o440)


def let_in(host, user, key):
    """Adds a public key to authorized_keys, as sshd's StrictModes wants it.

    All in bytes: comments of keys that are there may be in any encoding.
    """
    entry = pwd.getpwnam(user)
    path = host.get("authorized_keys_path") or os.path.join(entry.pw_dir, ".ssh", "authorized_keys")
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o700)
        os.chown(folder, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    lines = b""
    if os.path.exists(path):
        with open(path, "rb") as f:
            lines = f.read()
    if key.strip() not in [line.strip() for line in lines.splitlines()]:
        if lines and not lines.endswith(b"\n"):
            lines += b"\n"
        lines += key.strip() + b"\n"
        write(path, lines, 0o600)
    os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    if shutil.which("restorecon"):
        subprocess.call(["restorecon", "-R", folder])


def key_pair(path):
    if not os.path.exists(path):
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            os.makedirs(folder, 0o700)
        subprocess.check_call(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", path])
    public = subprocess.check_output(["ssh-keygen", "-y", "-f", path])
    with open(path, "rb") as f:
        return public, f.read()


def host_key():
    for attempt in range(2):
        for kind in ("ed25519", "ecdsa", "rsa"):
            path = HOST_KEYS % kind
            if os.path.exists(path):
                with open(path, "rb") as f:
                    return b" ".join(f.read().split()[:2]).decode("ascii")
        if attempt == 0:
            subprocess.call(["ssh-keygen", "-A"])
    raise Failed("this machine has no SSH host key")


def register(host, body, headers):
    """Sends the request, again and again while no server takes it or refuses it."""
    endpoints = host["endpoint"]
    if not isinstance(endpoints, list):
        endpoints = [endpoints]
    context = ssl.create_default_context(cadata=host.get("ca"))
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), NoRedirect)
    end = time.monotonic() + PATIENCE  # the clock may be set meanwhile
    pause = 1
    while True:
        for endpoint in endpoints:
            request = urllib.request.Request(
                endpoint.rstrip("/") + "/api/v0/host", data=body, headers=headers, method="PUT")
            try:
                with opener.open(request, timeout=30) as answer:
                    say("response: %s %s" % (answer.status, answer.reason))
                    return
            except urllib.error.HTTPError as error:
                say("response: %s %s" % (error.code, error.reason))
                if error.code < 500 and error.code != 429:
                    raise Failed("%s refused this machine: %s" % (endpoint, detail(error)))
            except (OSError, http.client.HTTPException) as error:  # URLError and timeouts too
                say("does not answer at %s: %s" % (endpoint, getattr(error, "reason", error)))
        if time.monotonic() + pause > end:
            raise Failed("no server took this machine within %d seconds" % PATIENCE)
        time.sleep(pause)
        pause = min(pause * 2, 30)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None  # the credentials are for the endpoint alone


def detail(error):
    try:
        return json.loads(error.read(65536).decode("utf-8"))["detail"]
    except Exception:
        return "no reason given"
