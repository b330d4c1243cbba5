#!/usr/bin/env bash
# The unit tests and a live measurement of each probe with other Debians' Python, bcc and libbpf, on this machine's kernel.
# Usage: run.sh [SUITE ...]. A suite's files are made once, below build/distributions, and kept.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
folder=build/distributions
packages=(
  python3 python3-venv python3-numpy python3-bpfcc python3-redis bpftool iproute2 procps kmod nftables iptables iperf3
  git redis-tools
)
live=(
  tests/kernel/test_accuracy.py tests/kernel/test_ways.py
  tests/live/test_drops.py::test_each_drop_is_streamed_with_its_stack_and_what_is_beyond_the_rate_is_counted
  tests/kernel/test_conntrack.py::test_ipv6_connections_and_those_mapped_from_ipv4
)
versions='import bcc, ctypes, mmap, platform, numpy
library = ctypes.CDLL("libbpf.so.1")
print(f"Python {platform.python_version()}, bcc {bcc.__version__}, NumPy {numpy.__version__},",
      f"libbpf {library.libbpf_major_version()}.{library.libbpf_minor_version()}, kernel {platform.release()}")'

mirror() { # that this machine uses
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 -E '/debian/?$'
}

files() { # SUITE ROOT
  [ -e "$2/made" ] && return
  rm -rf "$2"
  local include
  include=$(IFS=,; echo "${packages[*]}")
  debootstrap --variant=minbase --include="$include" "$1" "$2" "$(mirror)" >"$2.log" 2>&1 || { tail -n 20 "$2.log" && return 1; }
  touch "$2/made"
}

environment() { # ROOT: the project, and what it needs of PyPI, fetched by this machine's pip
  local root=$1 wheels python
  wheels=$root/wheels
  python=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  rm -rf "$root/probekit" && mkdir -p "$wheels" "$root/probekit"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory "$root/probekit"
  rm -f "$wheels"/probekit_ebpf-*.whl
  .venv/bin/pip wheel --quiet --no-deps --wheel-dir "$wheels" .
  .venv/bin/pip download --quiet --only-binary :all: --python-version "$python" --dest "$wheels" \
    "$(echo "$wheels"/probekit_ebpf-*.whl)[dev]"
  chroot "$root" python3 -m venv --clear --system-site-packages /venv
  chroot "$root" env -i PATH="$PATH" /venv/bin/pip install --quiet --no-index --find-links /wheels 'probekit-ebpf[dev]'
}

measure() { # ROOT: the tests in LANE, in a mount namespace of its own
  unshare --mount --propagation private bash -s -- "$@" <<'INSIDE'
  set -euo pipefail
  root=$1
  mount --bind "$root" "$root" # `ip netns` wants a root that is mounted
  root=$(readlink -f "$root")
  mount --rbind /proc "$root/proc" && mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev"
  mount -t tmpfs run "$root/run" && mount -t tmpfs tmp "$root/tmp"
  exec chroot "$root" env -i PATH=/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
    sh -c "cd /probekit && exec /venv/bin/python -B -m pytest -p no:cacheprovider -q $LANE"
INSIDE
}

lane() { # WORDS TEST ...
  local words=$1 began=$SECONDS
  shift
  LANE=$* measure "$root" || status=1
  echo "=== Debian $one: $words: $((SECONDS - began)) s"
}

status=0
if [ $# = 0 ]; then set -- trixie testing; fi
for one in "$@"; do
  root=$folder/$one
  mkdir -p "$folder"
  began=$SECONDS
  files "$one" "$root"
  environment "$root"
  echo "=== Debian $one: $(chroot "$root" /usr/bin/python3 -W ignore -c "$versions"); made in $((SECONDS - began)) s"
  lane "unit tests" tests/unit
  lane "a measurement with each probe" "${live[@]}"
done
exit "$status"
