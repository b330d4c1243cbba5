"""Takes the protections out of a copy of the tree, one after the other, and sees that their tests fail.

./dev mutations [WAY] [NAME ...]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
C, PLAN, DECODE = "bpf/latency.bpf.c", "probekit_latency/attach.py", "probekit/decode/__init__.py"


@frozen
class Mutation:
    """A protection that is taken out.

    Attributes:
        tests: Tests that have to fail without it.
        edits: File, text that is there once, and what takes its place.
    """

    tests: tuple[str, ...]
    edits: tuple[tuple[str, str, str], ...]


def one(test: str, old: str, new: str, file: str = C) -> Mutation:
    """A mutation of one place, for one test."""
    return Mutation((test,), ((file, old, new),))


CLIENT_READS = "if (!c->start || !c->ready || !handed_over(c, sk, direct))"
SERVER_READS = "else if (c->ready && handed_over(c, sk, direct))"
RESPONSE_ENDS = """    finish(c, sk, now, now - c->ready, direct);
  }
  c->start = 0;"""
FORGET = """      forget(c);
    }
  }"""
FORGET_BIRTH = """    if (c) /* its death was missed and its address is used again */
      forget(c);
"""
RECV_LENGTH = (PLAN, '("tcp_rcv_space_adjust", "receive_btf")', '("sock_recv_length", "receive_btf")')
SEND_LENGTH = (PLAN, '("tcp_sendmsg_locked", "send_btf")', '("sock_send_length", "send_btf")')

MUTATIONS = {
    "a peek is a response, and responses end nothing": Mutation(
        ("test_msg_peek",), ((C, CLIENT_READS, "if (!c->start || !c->ready)"), (C, RESPONSE_ENDS, RESPONSE_ENDS[:-16]))
    ),
    "a peek is a response": one("test_a_peek_is_not_yet_handing_over", CLIENT_READS, "if (!c->start || !c->ready)"),
    "each read of a response ends a request": Mutation(
        ("test_a_streamed_response_in_many_reads", "test_a_running_total_in_one_read"),
        ((C, RESPONSE_ENDS, RESPONSE_ENDS[:-16]),),
    ),
    "each return of recv is a response": Mutation(
        ("test_eagain_polling",), (RECV_LENGTH, (C, CLIENT_READS, "if (!c->start)"))
    ),
    "responses are seen in recv alone": Mutation(("test_splice_from_a_socket",), (RECV_LENGTH,)),
    "a client reads nothing": one("test_zero_length_reads", CLIENT_READS, "if (!c->start || !c->ready)"),
    "a server reads nothing": one("test_zero_length_reads", SERVER_READS, "else if (c->ready)"),
    "whatever is read is a response": Mutation(
        ("test_the_rest_of_an_earlier_response",),
        ((C, CLIENT_READS, "if (!c->start || !handed_over(c, sk, direct))"), (C, "SIDE_CLIENT || read > all", "read > all")),
    ),
    "a response is whatever is read once one is there": one(
        "test_the_rest_of_an_earlier_response_read_before_the_next_one",
        "c->endpoint.side == SIDE_CLIENT || read > all", "read > all",
    ),
    "sockets that have ended get records": one(
        "test_data_read_after_the_end", "if (!(state & CONNECTED))", "if (!state)"
    ),
    "sockets that are not connected get records": Mutation(
        ("test_sends_before_the_connection_is_there",),
        (SEND_LENGTH, (C, "if (!(state & CONNECTED))", "if (!state)")),
    ),
    "a FIN is a byte": one("test_half_close", " - (READ(direct, &sk->__sk_common, skc_flags) >> SOCK_DONE & 1)", ""),
    "half an end is an end": one("test_half_close", "else if (new == TCP_CLOSE)", "else if (new != TCP_ESTABLISHED)"),
    "each send begins a request": one("test_pipelined_sends", """    if (c->start) /* more of a request, or another one before the answer */
      return;
    mark""", "    mark"),
    "what came during a service is forgotten": one(
        "test_a_request_that_comes_while_another_is_answered", "c->endpoint.more ? UNTIMED : 0", "0"
    ),
    "a server's send answers": one(
        "test_a_server_that_speaks_unasked", "  if (!c->start) /* more of a response, or something nobody asked for */\n    return;\n", ""
    ),
    "sends of nothing count": Mutation(("test_zero_length_sends",), (SEND_LENGTH,)),
    "the owner is who runs when data arrives": one(
        "test_the_process_in_softirq_is_not_the_owner", "    c->endpoint.more = 1;\n  } else if (!c->start && !c->ready) {\n", "    c->endpoint.more = 1;\n  } else if (!c->start && !c->ready) {\n    own(c);\n"
    ),
    "the owner is a thread": one("test_a_thread_other_than_the_main_one", "bpf_get_current_pid_tgid() >> 32", "bpf_get_current_pid_tgid()"),
    "the owner never changes": one("test_a_process_that_forks_with_an_open_socket", "if (c->pid == pid)", "if (c->pid)"),
    "records outlive their sockets": Mutation(
        ("test_a_socket_closed_with_a_request_open_and_its_address_reused",),
        ((C, FORGET, FORGET.replace("forget(c);", "")), (C, FORGET_BIRTH, "")),
    ),
    "a record that is there is taken": one(
        "test_an_address_reused_whose_forerunners_end_was_missed", FORGET_BIRTH, "    if (c)\n      return 0;\n"
    ),
    "both ends are requests": one("test_loopback_both_ends", "client ? MEASURE_REQUEST : MEASURE_SERVICE", "MEASURE_REQUEST"),
    "ports are as they come": one("test_ports_in_host_and_in_network_order", "bpf_ntohs(port)", "port"),
    "v4-mapped is IPv6": one("test_v4_mapped", "address.ipv4_mapped or address", "address", DECODE),
    "all is IPv4": one("test_ipv6", "if (family == FAMILY_IPV6)", "if (family == 1)"),
    "all that is readable is TCP": one(
        "test_unix_sockets_and_udp_left_out", "  if (c)\n    arrived(c, sk, direct);", "  if (!c)\n    c = add_unseen(sk, direct);\n  if (c)\n    arrived(c, sk, direct);"
    ),
    "an older connection is a client": one(
        "test_a_connection_older_than_the_probe", "READ(direct, sk, sk_max_ack_backlog) ? SIDE_SERVER : SIDE_CLIENT", "SIDE_CLIENT"
    ),
    "births are not seen": one("test_a_connection_of_the_probes_time_is_not_older", "ORIGIN_BIRTH", "ORIGIN_UNSEEN"),
    "an MPTCP socket is a TCP socket": one(
        "test_mptcp", "    if (!tcp_sock_of(sk, true)) /* MPTCP and SCTP go through these states too */\n      return 0;\n", ""
    ),
    "srtt is as the kernel has it": one("test_srtt_is_shifted", "READ(direct, tp, srtt_us) >> 3", "READ(direct, tp, srtt_us)"),
    "an end before its start is not looked for": one("test_clock_wrap", "if (now < c->start)", "if (0)"),
    "squares have 64 bits": one(
        "test_counter_wrap_of_squares", "  if (*low < square)\n    *high += 1;\n", "", "bpf/include/moments.h"
    ),
    "places in a stream have 64 bits": one(
        "test_counter_wrap_of_sequence_numbers", "(u32)(READ(direct, tp, rcv_nxt) - READ(direct, tp, copied_seq))", "((u64)READ(direct, tp, rcv_nxt) - READ(direct, tp, copied_seq))"
    ),
    "misses are not read": one(
        "test_programs_missed", '"programs_missed": self.loaded.missed()', '"programs_missed": 0', "probekit/measure.py"
    ),
    "outliers are measured": one("test_outliers", "if (latency > OUTLIER_NS)", "if (0)"),
    "lost events are not counted": one("test_ring_full", "COUNT(events_lost);", ""),
    "lost records are not counted": one("test_closed_ring_full", "COUNT(closed_lost);", ""),
    "evictions are silent": one("test_map_full", "    hand_over(c, END_EVICTED);\n", "    ;\n"),
    "the clock is read after the send": one(
        "test_requests_and_services_lie_within_the_programs_own_times", '("tcp_sendmsg_locked", "send_btf")', '("sock_send_length", "send_btf")', PLAN
    ),
}  # fmt: skip


def failing(mutation: Mutation, way: str, cache: Path) -> dict[str, str]:
    """What became of each test: `failed` is what is wanted."""
    with tempfile.TemporaryDirectory(prefix="probekit-mutation-") as folder:
        copy = Path(folder, "tree")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for file, old, new in mutation.edits:
            text = (copy / file).read_text()
            if text.count(old) != 1:
                raise SystemExit(f"{file} has {text.count(old)} times, not once: {old}")
            (copy / file).write_text(text.replace(old, new))
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
        wanted = " or ".join(f"{test}[" for test in mutation.tests)
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider", "tests/kernel"]
        done = subprocess.run(
            [*command, "-k", f"({wanted}) and {way}"], cwd=copy, env=environment, capture_output=True, text=True
        )
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) .*?::(\w+)\[", done.stdout, re.MULTILINE)
    return {
        test: next((verdict for verdict, name in found if name == test), "not run").lower() for test in mutation.tests
    }


def main(way: str = "tracepoint", *names: str) -> int:
    """Tries the mutations of these names, or all."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="probekit-mutation-cache-") as cache:
        for name in names or MUTATIONS:
            for test, verdict in failing(MUTATIONS[name], way, Path(cache)).items():
                print(f"{'  ' if verdict == 'failed' else '! '}{name:<60} {test:<75} {verdict}", flush=True)
                survived += verdict != "failed"
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
