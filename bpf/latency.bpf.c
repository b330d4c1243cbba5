// SPDX-License-Identifier: GPL-2.0-only
/* TCP request latency and service time, one record a connection, changed in place.
 *
 * A client socket sends a request and is handed the response; a server socket is handed a request and sends the
 * response. A response goes on until the next request begins: what is handed over, or sent, behind its first part moves
 * the end of the exchange, and only there it is counted (`settle`); what is not over when the run ends, user space
 * finds in the record.
 * `send` and `receive` run in the context of the process that uses the socket and under the socket's lock, so
 * that a record has one writer at a time and needs no atomic operation. `readable` runs where the packet is taken in,
 * often on another CPU: it writes nothing but when data arrived, to a cache line of its own, and reads no record.
 *
 * What is handed over counts as a response, or as a request, by its place in the other side's stream: the rest of an
 * earlier response, an empty read or data read again after a peek begin and end nothing.
 *
 * Helper calls and cache lines that another CPU wrote are what an event costs: the time, the owner once an exchange,
 * one such line at the end of a request, and nothing else on most of them. The clock is read once more for each part of
 * a response behind the first.
 *
 * Defined by the plan (probekit_latency/attach.py): SETS, WAYS, LOCKS, PICKUP, SAMPLE, OUTLIER_NS, OWNERS, AWAY,
 * FIRST_BYTES, REST_BITS, HIGH_BITS, CLOSED_PAGES, CLOSED_WAKE; COUNTED where the kernel makes the histograms; with
 * mode = "events" or slow exchanges EVENT_PAGES, EVENT_WAKE, SLOW_NS, SLOW_SHARE and SLOW_RATE; the enums of values.py:
 * SIDE_*, ORIGIN_*, END_*, MEASURE_*, LONGER_*.
 */
#include "latency_lives.bpf.h"

#define TCP_DATA_OFFSET 12 /* of the byte in struct tcphdr that has the header's length */

/* Programs in softirq must not come here. */
static __always_inline void own(struct connection *c, u32 pid) {
  struct owner_name owner;

  __builtin_memset(&owner, 0, sizeof(owner));
  c->pid = pid;
  bpf_get_current_comm(owner.name, sizeof(owner.name));
  owners.update(&pid, &owner);
}

/* The time, or UNTIMED where an exchange that begins now is none of the sample. It is read before anything else of an
 * event: reading it waits for all that is under way, and what comes later goes on while caches are waited for. */
static __always_inline u64 time_of_begin(void) {
  if (SAMPLE != 0xffffffff && bpf_get_prandom_u32() > SAMPLE)
    return UNTIMED;
  return bpf_ktime_get_ns();
}

/* An exchange begins; it belongs to the process that runs. */
static __always_inline void begin(struct connection_slot slot, bool client, u64 now) {
  struct connection *c = slot.record;
  u32 idle, stranger;

  c->start = now;
  stranger = c->pid ^ bpf_get_current_pid_tgid() >> 32;
  if (SAMPLE != 0xffffffff && now == UNTIMED) {
    COUNT(sampled_out);
    if (stranger)
      own(c, c->pid ^ stranger);
    return;
  }
  idle = (c->used ^ (u32)(now >> TICK)) >> LONG_AGO;
  c->used = now >> TICK;
  if (!(stranger | idle))
    return;
  if (client && idle) /* should one be missed, nobody takes the last one for it */
    expect_arrival(slot, c->place);
  if (stranger)
    own(c, c->pid ^ stranger);
}

/* An exchange that is not measured. */
static __always_inline void reject(u64 start, u64 now) {
  if (now < start)
    COUNT(clock);
  else
    COUNT(outliers);
}

/* After an exchange what the kernel knows of the connection, where that was not read lately. */
static __always_inline void remember(struct connection_slot slot, struct sock *sk, u32 idle, bool direct) {
  struct tcp_sock *tp;

  if (!idle && slot.record->events_received_high >= 2 * EVENT)
    return;
  tp = surely_tcp_sock(sk, direct);
  if (tp)
    read_transport(slot, sk, tp, direct);
}

/* An exchange ends that was not timed. */
static __always_inline void end_unmeasured(struct connection *c, u64 start, u64 now) {
  c->used = now >> TICK;
  miss(start);
}

/* Of an exchange that is kept the parts are not known. */
static __always_inline void leave_unsplit(struct connection *c, u64 latency) {
  c->unsplit_sum += latency;
  if ((c->min_unsplit & REST) < REST)
    c->min_unsplit += 1;
}

/* A client's exchange ends. */
static __always_inline void finish_request(struct connection_slot slot, struct sock *sk, u64 start, u64 now,
                                           bool direct) {
  struct connection *c = slot.record;
  u64 latency = now - start, arrival, wait = UNSEEN;
  u32 idle = (c->used ^ (u32)(now >> TICK)) >> LONG_AGO;

  if (latency > OUTLIER_NS)
    goto odd;
  c->used = now >> TICK;
  hand(c, now, latency);
  distribute(MEASURE_FIRST_BYTE, latency);
  BARRIER(); /* another CPU wrote what comes now: all else is done while it is on its way */
  arrival = slot.set->arrival[bounded(slot.way)] & TIME;
  wait = (now - arrival) & TIME;
  if (if_negative((arrival - 1) | (latency - wait)))
    goto unsplit;
  c->wait += wait;
  distribute(MEASURE_WAKEUP, wait);
  distribute(MEASURE_WIRE, latency - wait);
split:
  remember_wait(slot, wait);
  remember(slot, sk, idle, direct);
  return;

unsplit:
  wait = UNSEEN;
  leave_unsplit(c, latency);
  goto split;
odd:
  reject(start, now);
}

/* A server's exchange ends. */
static __always_inline void finish_service(struct connection_slot slot, struct sock *sk, u64 start, u64 now,
                                           bool direct) {
  struct connection *c = slot.record;
  u64 latency = now - start, wait = UNSEEN;
  u32 idle = (c->used ^ (u32)(now >> TICK)) >> LONG_AGO;

  if (latency > OUTLIER_NS)
    goto odd;
  c->used = now >> TICK;
  hand(c, now, latency);
  keep(c, latency);
  distribute(MEASURE_SERVICE, latency);
#if PICKUP
  u64 ready = slot.set->ready[bounded(slot.way)];

  if (ready - 1 < start && start - ready < TIME) { /* not 0, and not after */
    wait = start - ready;
    c->wait += wait;
    distribute(MEASURE_PICKUP, wait);
  } else {
    leave_unsplit(c, latency);
  }
#endif
  remember_wait(slot, wait);
  remember(slot, sk, idle, direct);
  return;

odd:
  reject(start, now);
}

/* An exchange is over whose response has begun; the socket is at hand. */
static __always_inline void settle_now(struct connection_slot slot, struct sock *sk, struct tcp_sock *tp, bool client,
                                       u64 now, bool direct) {
  struct connection *c = slot.record;

#ifdef EVENT_PAGES
  read_transport(slot, sk, tp, direct);
#else
  /* of a response that took long: what held it up was not known when it began */
  if (c->start & GOES_ON || (c->used ^ (u32)(now >> TICK)) >> LONG_AGO)
    goto long_ago;
#endif
settled:
  settle(slot, client);
  return;

long_ago:
  read_transport(slot, sk, tp, direct);
  goto settled;
}

/* A client's program sends. */
static __always_inline void send_request(struct connection_slot slot, struct sock *sk, bool direct) {
  struct connection *c = slot.record;
  struct tcp_sock *tp;
  u64 now;

  if (c->start && !(c->start & HANDED)) /* more of a request, or another one before the answer */
    return;
  now = time_of_begin();
  tp = surely_tcp_sock(sk, direct);
  if (!tp)
    return;
  if (c->start)
    settle_now(slot, sk, tp, true, now, direct);
  c->place = READ(direct, tp, rcv_nxt); /* the rest of an earlier response is before it */
  remember_begin(slot, tp, direct);
  begin(slot, true, now);
}

/* A server's program sends. Data behind `place` is the next request, though it came before this answer. */
static __always_inline void send_response(struct connection_slot slot, struct sock *sk, bool direct) {
  struct connection *c = slot.record;
  u64 start = c->start, now;

  if (!start) /* something nobody asked for */
    return;
  now = bpf_ktime_get_ns();
  if (start & HANDED)
    goto more;
  c->start = 0;
  if (start > OLDER)
    finish_service(slot, sk, start, now, direct);
  else
    end_unmeasured(slot.record, start, now);
  return;

more: /* of a response */
  prolong(slot, now);
}

/* Under the socket's lock, in the sender's context, before anything was queued. */
static __always_inline void send(struct sock *sk, bool direct) {
  struct connection_slot slot = find_at_home(address_of(sk));

  if (!slot.set)
    goto elsewhere;
found:
  if (slot.record->side == SIDE_CLIENT)
    send_request(slot, sk, direct);
  else
    send_response(slot, sk, direct);
  return;

elsewhere:
  slot = find_elsewhere(address_of(sk));
  if (!slot.set)
    slot = add_unseen(sk, true, direct);
  if (slot.set)
    goto found;
}
ON_FIRST_ARGUMENT(send, send)

/* tcp_sendmsg_locked itself: sock, message, size. Its tracepoint is where there is something to send. */
int message_btf(u64 *ctx) {
  if (ctx[2])
    send(opaque(ctx[0]), true);
  return 0;
}
#ifdef KPROBES
int message_kprobe(struct pt_regs *ctx) {
  if (PT_REGS_PARM3(ctx))
    send(opaque(PT_REGS_PARM1(ctx)), false);
  return 0;
}
#endif

/* A server's program was handed data. */
static __always_inline void receive_request(struct connection_slot slot, struct sock *sk, bool direct) {
  struct connection *c = slot.record;
  struct tcp_sock *tp;
  u32 copied, received;
  u64 now;

  if (c->start && !(c->start & HANDED))
    goto more;
  now = time_of_begin();
  tp = surely_tcp_sock(sk, direct);
  if (!tp)
    return;
  copied = READ(direct, tp, copied_seq);
  received = READ(direct, tp, rcv_nxt);
  if ((s32)(copied - c->place) <= 0) /* a peek, a read of no bytes, the rest of a request that has its answer */
    return;
  if (c->start)
    settle_now(slot, sk, tp, false, now, direct);
  remember_begin(slot, tp, direct);
#if PICKUP
  u64 arrived = slot.set->arrived[bounded(slot.way)];
  /* not where that was before the last answer: whose data it was is not known then */
  bool seen = slot.set->arrival[bounded(slot.way)] & TIME && (s32)((u32)(arrived >> TICK) - c->used) >= 0;

  slot.set->ready[bounded(slot.way)] = seen ? arrived : 0;
#endif
  c->place = received;
  begin(slot, false, now);
  return;

more: /* of a request, or another one before the answer */
  tp = surely_tcp_sock(sk, direct);
  if (!tp)
    return;
  copied = READ(direct, tp, copied_seq);
  received = READ(direct, tp, rcv_nxt);
  if (copied == received || (s32)(copied - c->place) > FAR)
    c->place = received;
}

/* A client's program was handed data. */
static __always_inline void receive_response(struct connection_slot slot, struct sock *sk, bool direct) {
  struct connection *c = slot.record;
  u64 start = c->start, now;
  struct tcp_sock *tp;
  u32 copied;

  if (!start) /* something nobody asked for, or of an exchange that is not measured */
    return;
  now = bpf_ktime_get_ns();
  tp = surely_tcp_sock(sk, direct);
  if (!tp)
    return;
  copied = READ(direct, tp, copied_seq);
  if ((s32)(copied - c->place) <= 0) /* a peek, a read of no bytes, the rest of a response */
    return;
  c->place = copied;
  if (start & HANDED)
    goto more;
  c->start = 0;
  if (start > OLDER)
    finish_request(slot, sk, start, now, direct);
  else
    end_unmeasured(slot.record, start, now);
  return;

more: /* of a response */
  prolong(slot, now);
}

/* Under the socket's lock, in the reader's context, after each segment that was copied. */
static __always_inline void receive(struct sock *sk, bool direct) {
  struct connection_slot slot = find_at_home(address_of(sk));

  if (!slot.set)
    goto elsewhere;
found:
  if (slot.record->side == SIDE_CLIENT)
    receive_response(slot, sk, direct);
  else
    receive_request(slot, sk, direct);
  return;

elsewhere:
  slot = find_elsewhere(address_of(sk));
  if (!slot.set)
    slot = add_unseen(sk, false, direct);
  if (slot.set)
    goto found;
}
ON_FIRST_ARGUMENT(receive, receive)

/* A slot where it matters when data arrives: a client's, with PICKUP also a server's. */
static __always_inline bool is_waiting(struct connection_slot slot) {
  return PICKUP || slot.set->tag[bounded(slot.way)] & CLIENT;
}

/* In softirq, or with the socket's backlog, when data can be read. The kernel has just read the clock for it. */
static __always_inline void readable(struct sock *sk, bool direct) {
  struct connection_slot slot = find_by_tag(address_of(sk));
  struct tcp_sock *tp;

  if (!slot.set || !is_waiting(slot))
    return;
  tp = surely_tcp_sock(sk, direct);
  if (tp)
    arrive(slot, READ(direct, tp, copied_seq), READ(direct, tp, rcv_nxt), false, READ(direct, tp, tcp_clock_cache));
}
ON_FIRST_ARGUMENT(readable, readable)

/* Kernels before 6.3 have no tracepoint for that: every segment is seen, before it is looked at, and those without data
 * are left out. */
int packet_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]);
  struct connection_slot slot = find_by_tag(address_of(sk));
  struct sk_buff *skb = opaque(ctx[1]);
  struct tcp_sock *tp;
  u32 copied, received, data;
  u8 header = 0;

  if (!slot.set || !is_waiting(slot))
    return 0;
  tp = surely_tcp_sock(sk, true);
  if (!tp)
    return 0;
  bpf_probe_read_kernel(&header, sizeof(header), skb->head + skb->transport_header + TCP_DATA_OFFSET);
  data = skb->len - (header >> 4) * 4;
  copied = tp->copied_seq;
  received = tp->rcv_nxt;
  if (data)
    arrive(slot, copied, received + data, copied == received, bpf_ktime_get_ns());
  return 0;
}

/* sk, old state, new state: everything that TCP does to a connection's life goes through here. */
int state_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]);
  int old = ctx[1], new = ctx[2];
  struct tcp_sock *tp = tcp_sock_of(sk, true);
  bool born = new == TCP_ESTABLISHED && (old == TCP_SYN_SENT || old == TCP_SYN_RECV);
  struct connection_slot slot;

  if (!tp || !(born || new == TCP_CLOSE)) /* MPTCP and SCTP go through these states too */
    return 0;
  slot = find(address_of(sk));
  if (!slot.set && !born && old != TCP_SYN_SENT && old != TCP_LISTEN)
    forget_eviction(address_of(sk));
  if (slot.set) { /* if one is born, its forerunner's death was missed and the address is used again */
    if (!born)
      read_transport(slot, sk, tp, true);
    forget(slot, address_of(sk));
  }
  if (born)
    add(sk, old == TCP_SYN_SENT || has_opened(sk, tp, true) ? SIDE_CLIENT : SIDE_SERVER, ORIGIN_BIRTH, NULL, true);
  return 0;
}
