"""The base images of `tests/dockerfiles`, made of Debian's static busybox: one archive that every engine loads.

The Dockerfiles name what their year named (`ubuntu:12.04`, `node:0.10-onbuild`, `gcr.io/distroless/static`), and these
images stand in: `plain` has busybox, users and groups; `tools` has in addition what the package managers were called,
as one shell script that does a little real work with local files; `small` is for builds that run nothing. Nothing is
fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.build.contents import File, read

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
user:x:1000:1000:User:/home/user:/bin/sh
"""
GROUP = "root:x:0:\ndaemon:x:1:\nadm:x:4:daemon\nwww-data:x:33:\nuser:x:1000:\nextra:x:2000:user\n"

STUB = r"""#!/bin/sh
# What a package manager or a compiler does, as far as files show it. Deterministic, without a network.
set -e
packages=/usr/lib/python/site-packages
mark() { mkdir -p "$1"; echo "$3" >"$1/$2"; }
case "${0##*/} $1" in
"apt-get update") mark /var/lib/apt/lists index "packages of local" ;;
"apt-get install" | "yum install" | "dnf install" | "apk add" | "gem install")
    shift
    for each; do
        case $each in -*) continue ;; esac
        mark "/usr/share/doc/$each" copyright "$each is free"
        printf '#!/bin/sh\necho %s "$@"\n' "$each" >"/usr/sbin/$each"
        chmod 755 "/usr/sbin/$each"
    done ;;
"adduser "* | "addgroup "*)
    id=1234 group= home= make=yes name=
    while [ $# -gt 0 ]; do
        case $1 in
        -u | -g) id=$2; shift ;;
        -G) group=$2; shift ;;
        -h) home=$2; shift ;;
        -H) make= ;;
        -*) ;;
        *) name=$1 ;;
        esac
        shift
    done
    case $0 in *addgroup) echo "$name:x:$id:" >>/etc/group; exit ;; esac
    [ "$group" ] || { group=$name; echo "$name:x:$id:" >>/etc/group; }
    gid=$(sed -n "s/^$group:x:\([0-9]*\):.*/\1/p" /etc/group)
    home=${home:-/home/$name}
    echo "$name:x:$id:$gid::$home:/bin/sh" >>/etc/passwd
    [ -z "$make" ] || { mkdir -p "$home"; chown "$id:$gid" "$home"; } ;;
"apt-get clean" | "yum clean" | "dnf clean") rm -rf /var/lib/apt/lists/* ;;
"pip install")
    shift
    for each; do
        case $each in
        *.whl) mkdir -p $packages; unzip -qo "$each" -d $packages ;;
        -*) continue ;;
        *.txt) while read -r one; do mark "$packages/${one%%=*}" __init__.py "version='${one##*=}'"; done <"$each" ;;
        *) mark "$packages/${each%%=*}" __init__.py "version='${each##*=}'" ;;
        esac
    done ;;
"npm install" | "npm ci")
    sed -n 's/.*"\([a-z-]*\)": "\^\([0-9.]*\)".*/\1 \2/p' package.json |
        while read -r name version; do
            mark "node_modules/$name" package.json "{\"version\": \"$version\"}"
        done ;;
"npm run") mkdir -p dist; cat src/* >dist/bundle.js ;;
"bundle install")
    sed -n "s/^gem '\([a-z-]*\)'.*/\1/p" Gemfile |
        while read -r name; do mark "/usr/local/bundle/$name" "$name.rb" "module"; done ;;
"composer install" | "mvn package" | "dotnet publish")
    mkdir -p target
    cat "$(ls src/* | head -n 1)" >target/app.jar ;;
"javac "*) shift $(($# - 1)); cp "$1" "${1%.java}.class" ;;
"go build" | "cargo build" | "gcc "*)
    out=a.out
    while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
    mkdir -p "$(dirname "$out")"
    { echo '#!/bin/sh'; cat main.* src/main.* 2>/dev/null; } >"$out" || true
    chmod 755 "$out" ;;
"uv sync")
    mkdir -p .venv/bin
    grep -h name pyproject.toml >.venv/pyvenv.cfg
    ln -sf /usr/bin/python3 .venv/bin/python ;;
"a2enmod "*)
    mkdir -p /etc/apache2/mods-enabled
    ln -sf "../mods-available/$1.load" "/etc/apache2/mods-enabled/$1.load" ;;
"systemctl enable")
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -sf "/lib/systemd/system/$2" "/etc/systemd/system/multi-user.target.wants/$2" ;;
*) echo "${0##*/} $*: not in this image" >&2; exit 1 ;;
esac
"""
TOOLS = (
    "adduser addgroup apt-get yum dnf apk gem pip npm bundle composer mvn dotnet javac go cargo gcc uv "
    "a2enmod systemctl"
).split()

PLAIN_NAMES = ("busybox", "busybox:1.36", "gcr.io/distroless/static", "gcr.io/distroless/static-debian12:nonroot")
SMALL_NAMES = ("small",)
TOOLS_NAMES = (
    "ubuntu", "ubuntu:12.04", "ubuntu:14.04", "ubuntu:22.04", "debian:wheezy", "debian:jessie", "debian:bookworm-slim",
    "centos:6", "centos:7", "fedora:24", "alpine:3.3", "alpine:3.18", "alpine:3.20", "node:0.10", "node:10-alpine",
    "node:22-slim", "ruby:2.1", "java:7", "maven:3.5-jdk-8", "golang:1.9", "golang:1.22", "rust:1.63", "python:2.7",
    "python:3.8", "python:3.12-slim", "php:5.6-apache", "mcr.microsoft.com/dotnet/sdk:2.1", "ghcr.io/astral-sh/uv:0.4",
)  # fmt: skip

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CONFIGS: dict[str, dict[str, Any]] = {
    "node:0.10": {"Env": [_PATH, "NODE_VERSION=0.10.48"], "Cmd": ["node"]},
    "php:5.6-apache": {"Env": [_PATH], "Cmd": ["apache2-foreground"], "WorkingDir": "/var/www/html", "Volumes": None},
    "golang:1.9": {"Env": ["PATH=/go/bin:/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOPATH=/go"]},
    "gcr.io/distroless/static-debian12:nonroot": {"Env": [_PATH], "User": "1000", "WorkingDir": "/home/user"},
    "centos:7": {"Env": [_PATH], "Labels": {"vendor": "CentOS", "license": "GPLv2"}, "Cmd": ["/bin/bash"]},
    "java:7": {"Env": [_PATH, "LANG=C.UTF-8"], "Entrypoint": ["/entry"], "Cmd": ["-version"]},
}
"""What a base says beside its files; of the others nothing but PATH and a command."""

ONBUILD = {
    "node:0.10-onbuild": ["COPY package.json /usr/src/app/", "RUN npm install", "COPY . /usr/src/app"],
    "golang:1.4-onbuild": ["COPY . /go/src/app", "RUN go build -o /go/bin/app"],
    "python:2-onbuild": ["ARG EXTRA=none", "ADD requirements.txt /usr/src/app/", "RUN pip install -r requirements.txt"],
}


def make(directory: Path) -> Path:
    """A `docker-archive` with all of them. Times are the epoch."""
    tools = _layer(with_tools=True)
    layers = {"plain": _layer(with_tools=False), "tools": tools, "small": _small()}
    images: list[tuple[str, str, dict[str, Any]]] = [(name, "plain", CONFIGS.get(name, {})) for name in PLAIN_NAMES]
    images += [(name, "tools", CONFIGS.get(name, {})) for name in TOOLS_NAMES]
    images += [(name, "small", {"Env": [_PATH, "FROM_BASE=yes"], "WorkingDir": "/work"}) for name in SMALL_NAMES]
    for name, triggers in ONBUILD.items():
        work = "/go/src/app" if name.startswith("golang") else "/usr/src/app"
        images.append((name, "tools", {"Env": [_PATH], "WorkingDir": work, "OnBuild": triggers}))
    path = directory / "bases.tar"
    with tarfile.open(path, "w") as tar:
        for kind, data in layers.items():
            _add(tar, f"{kind}.tar", data)
        manifest = []
        for number, (name, kind, config) in enumerate(images):
            diff_id = f"sha256:{hashlib.sha256(layers[kind]).hexdigest()}"
            document = {
                "architecture": "amd64",
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": config or {"Env": [_PATH], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                "history": [{"created": "1970-01-01T00:00:00Z", "created_by": f"the base {name}"}],
            }
            _add(tar, f"{number}.json", json.dumps(document).encode())
            tag = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
            manifest.append({"Config": f"{number}.json", "RepoTags": [tag], "Layers": [f"{kind}.tar"]})
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return path


def names() -> list[str]:
    return [*PLAIN_NAMES, *TOOLS_NAMES, *SMALL_NAMES, *ONBUILD]


def files(archive: Path, to: Path) -> dict[str, File]:
    """The files of the base with the tools: those of the other one are among them. `to`: where a copy may lie."""
    copy = ["skopeo", "copy", "-q", f"docker-archive:{archive}:ubuntu:latest", f"dir:{to}"]
    subprocess.run(copy, check=True, capture_output=True)
    return read(to).files


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def _small() -> bytes:
    """Users, and a few places to copy to: a directory with a mode and an owner, links to it, a file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, mode, uid in (("etc", 0o755, 0), ("work", 0o755, 0), ("real", 0o750, 1000), ("real/deep", 0o711, 33)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, uid, uid
            tar.addfile(member)
        _add(tar, "etc/passwd", PASSWD.encode())
        _add(tar, "etc/group", GROUP.encode())
        _add(tar, "work/file", b"of the base\n", 0o600)
        for name, goal in (("link", "real"), ("absolute", "/real/deep"), ("dangling", "nowhere")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, goal, 0o777
            tar.addfile(member)
    return stream.getvalue()


def _layer(*, with_tools: bool) -> bytes:
    busybox = shutil.which("busybox")
    assert busybox, "needs Debian's busybox-static"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        modes = {"tmp": 0o1777, "root": 0o700}
        for name in (
            "bin", "dev", "etc", "home", "home/user", "lib", "proc", "root", "sbin", "srv", "sys", "tmp", "usr",
            "usr/bin", "usr/lib", "usr/local", "usr/local/bin", "usr/sbin", "usr/share", "var", "var/lib", "var/log",
            "var/run", "var/www", "opt",
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, modes.get(name, 0o755)
            if name == "home/user":
                member.uid = member.gid = 1000
            tar.addfile(member)
        _add(tar, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        _add(tar, "etc/passwd", PASSWD.encode())
        _add(tar, "etc/group", GROUP.encode())
        links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
        links["lib64"] = "lib"
        if with_tools:
            _add(tar, "usr/lib/stub", STUB.encode(), 0o755)
            _add(tar, "entry", b'#!/bin/sh\nexec "$@"\n', 0o755)
            links |= {f"usr/bin/{tool}": "../lib/stub" for tool in TOOLS}
            _add(tar, "bin/bash", b'#!/bin/sh\nexec sh "$@"\n', 0o755)
        for name, goal in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, goal, 0o777
            tar.addfile(member)
    return stream.getvalue()
