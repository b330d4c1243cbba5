#!/usr/bin/env bash
# A real server and a real client on loopback, measured by probekit.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
bin=$(readlink -f "$here/../../.venv/bin")
work=$(mktemp -d)
port=$((20000 + RANDOM % 10000))
pids=()

cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# No shell looks in .venv/bin by itself, and sudo has a PATH of its own.
say_next() {
  local as_root=
  [ -z "${SUDO_UID:-}" ] || as_root='sudo env "PATH=$PATH" '
  cat <<NEXT

  request  how long the client waited for the whole answer:
           wire + wakeup + transfer; first_byte is wire + wakeup
  wire     the network, there and back, and everything the server did
  wakeup   this machine: from the answer's arrival until the client had it
  service  the server: from getting the request until it sent the answer

What next? Add probekit to this shell's PATH:

  export PATH="$bin:\$PATH"

Then measure what really happens on this machine:

  # which service is slow?
  ${as_root}probekit run latency --duration 10s
  # who opens and closes connections?
  ${as_root}probekit run conntrack --duration 10s
  # which packets does the kernel drop, and why?
  ${as_root}probekit run drops --duration 10s

To write results to a file, add --export json:FILE, csv:FILE or jsonl:FILE, and
--export stdout to see the tables as well.
README.md lists the documentation.
NEXT
}

# redis-tools has the server's program too, under the name of another; no service is started that way.
ln -s "$(command -v redis-check-rdb)" "$work/redis-server"
"$work/redis-server" --port "$port" --bind 127.0.0.1 --save '' --dir "$work" >"$work/redis.log" &
pids+=("$!")
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done

cd "$work"
: >messages
"$bin/probekit" run latency --config "$here/run.toml" 2>messages &
probe=$!
pids+=("$probe")
until grep -q '^measuring' messages; do
  if ! kill -0 "$probe" 2>/dev/null; then
    cat messages >&2
    wait "$probe"
  fi
  sleep 0.1
done
redis-benchmark -p "$port" -t set -n 20000 -c 1 -q >benchmark.txt
kill -INT "$probe"
code=0
wait "$probe" || code=$?
echo
echo "redis-benchmark's own figures: $(tr '\r' '\n' <benchmark.txt | grep 'requests per second' | tail -n 1)"
[ "$code" = 0 ] && say_next
exit "$code"
