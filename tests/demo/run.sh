#!/usr/bin/env bash
# A real server and a real client on loopback, measured by probekit.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
probekit=$here/../../.venv/bin/probekit
work=$(mktemp -d)
port=$((20000 + RANDOM % 10000))
pids=()

cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# redis-tools has the server's program too, under the name of another; no service is started that way.
ln -s "$(command -v redis-check-rdb)" "$work/redis-server"
"$work/redis-server" --port "$port" --bind 127.0.0.1 --save '' --dir "$work" >"$work/redis.log" &
pids+=("$!")
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done

cd "$work"
"$probekit" run latency --config "$here/run.toml" 2>messages &
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
echo "the client itself says: $(tr '\r' '\n' <benchmark.txt | grep 'requests per second' | tail -n 1)"
exit "$code"
