// SPDX-License-Identifier: GPL-2.0-only
/* TCP request latency and service time, one record a connection, changed in place.
 *
 * A client socket sends a request and is handed the response; a server socket is handed a request and sends the
 * response. `send` and `receive` run in the context of the process that uses the socket and under the socket's lock,
 * `readable` under its spinlock or with its backlog, so that a record has one writer at a time and needs no atomic
 * operation.
 *
 * What is handed over counts as a response, or as a request, only where data has arrived since the other side's turn
 * ended: the rest of an earlier response, an empty read or data read again after a peek begin and end nothing.
 *
 * Helper calls are what an event costs: the time, the owner once an exchange, and nothing else on most of them.
 *
 * Defined by the plan (probekit_latency/attach.py): SETS, WAYS, LOCKS, PICKUP, SAMPLE, OUTLIER_NS, OWNERS,
 * CLOSED_PAGES, CLOSED_WAKE; with mode = "events" EVENT_PAGES and EVENT_WAKE; the enums of values.py: SIDE_*, ORIGIN_*,
 * END_*, MEASURE_*.
 */
#include "histogram.h"
#include "moments.h"
#include "programs.h"
#include "socket.h"

#define TCP_DATA_OFFSET 12 /* of the byte in struct tcphdr that has the header's length */

/* States in which data goes to and fro, at least one way. */
#define CONNECTED (1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT)
#define UNSEEN ~0ULL
#define TICK 16           /* 2^16 ns = 65 us: who was used longest ago */
#define TRANSPORT_TICKS 8 /* 2^(16+8) ns = 17 ms: how old transport figures may be against the last exchange */
#define UNTIMED 1 /* in place of a time: it happened, but this exchange is sampled out or the time was not seen */

struct endpoint {
  u8 side;
  u8 origin;
  u8 end;
  u8 more; /* data has come since the request (server) or the response (client) was handed over */
  struct addresses addresses;
};

/* Cache lines are what an event costs, and 160 bytes begin at or amidst one: what every event touches is in the middle,
 * what the end of an exchange touches before it. */
struct connection {
  u64 min;
  u64 max;
  u64 square_low;
  u64 wait; /* ns, sum: data at the socket until handed over */
  u64 sum;
  u64 events;
  u64 socket;   /* the kernel's address of it; 0: the slot is free */
  u64 start;    /* ns; 0: no exchange under way */
  u64 ready;    /* ns; when the first data of the other side's turn reached the socket */
  u64 received; /* bytes: what is handed over next lies behind them */
  u32 pid;
  u32 used; /* in TICKs, for who leaves first */
  u32 square_high;
  struct endpoint endpoint;
  u32 unsplit; /* exchanges whose `wait` was not seen */
  u64 sent;
  u64 id;
  u32 srtt_us;
  u32 retransmits;
};

struct event {
  u64 time; /* ns, CLOCK_MONOTONIC, of its end */
  u64 latency;
  u64 wait; /* ns: data at the socket until handed over; UNSEEN where its arrival was not seen */
  u64 socket;
  struct endpoint endpoint;
  u32 pid;
  u32 srtt_us;
};

struct owner_name {
  char name[16];
};

/* Every figure that is not a latency: what was produced, and what was lost by which cause. */
struct counters {
  u64 events;
  u64 events_lost; /* ring buffer full */
  u64 connections;
  u64 closed;
  u64 closed_lost; /* ring buffer full */
  u64 evicted;     /* made room for another connection; their figures are delivered */
  u64 contended;   /* two CPUs wanted the same set; tried again at the socket's next event */
  u64 outliers;
  u64 sampled_out;
  u64 unanswered; /* closed or evicted with an exchange under way */
  u64 clock;      /* end before start: cannot be, so it is counted */
};

/* A socket has two sets of WAYS slots to be in. A tag is half of its address; others may have the same one. */
struct set_tags {
  u32 tag[WAYS]; /* half a cache line: where in the set a socket may be; 0: the slot is free */
};

BPF_F_TABLE("array", u32, struct set_tags, tags, SETS, BPF_F_MMAPABLE); /* mappable is aligned to a page */
BPF_ARRAY(locks, u64, LOCKS);
BPF_F_TABLE("array", u32, struct connection, connections, SETS *WAYS, BPF_F_MMAPABLE);
BPF_PERCPU_ARRAY(counters, struct counters, 1);
/* Of connections that found no room in the ring buffer, so that the totals are whole all the same. */
BPF_PERCPU_ARRAY(undelivered, struct moments, SIDES);
BPF_TABLE("lru_hash", u32, struct owner_name, owners, OWNERS);
BPF_RINGBUF_OUTPUT(closed, CLOSED_PAGES);
LAYOUT(closed, struct connection);
#ifdef EVENT_PAGES
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
LAYOUT(events, struct event);
#else
BPF_PERCPU_ARRAY(histograms, struct histogram, MEASURES);
#endif

static __always_inline struct counters *this_cpu_counters(void) {
  u32 zero = 0;

  return counters.lookup(&zero);
}

/* Atomic because a softirq may count while a process does, on the same CPU. */
#define COUNT(cause) \
  ({ \
    struct counters *counters_ = this_cpu_counters(); \
    if (counters_) \
      __sync_fetch_and_add(&counters_->cause, 1); \
  })

#define HASH 0x9e3779b97f4a7c15ULL /* 2^64 / golden ratio: Fibonacci hashing */

/* A socket's two sets. */
static __always_inline u32 set_of(u64 socket, bool second) {
  u64 mixed = socket * HASH;
  u64 half = second ? (mixed ^ (mixed >> 29)) & 0xffffffff : mixed >> 32;

  return (half * SETS) >> 32;
}

static __always_inline struct connection *slot_at(u32 set, u32 way) {
  u32 slot = set * WAYS + way;

  return connections.lookup(&slot);
}

static __always_inline u32 tag_of(u64 socket) {
  return (u32)socket | 1;
}

static __always_inline struct connection *find_in(u32 set, u64 socket) {
  struct set_tags *t = tags.lookup(&set);

  if (!t)
    return NULL;
#pragma unroll
  for (u32 way = 0; way < WAYS; way++) {
    if (t->tag[way] == tag_of(socket)) {
      struct connection *c = slot_at(set, way);

      if (c && c->socket == socket)
        return c;
    }
  }
  return NULL;
}

static __always_inline u32 home_of(u64 socket) {
  return (socket * HASH >> 20) % WAYS;
}

/* Where it would be in an empty table, which is where it nearly always is: one cache line instead of two. */
static __always_inline struct connection *find_at_home(struct sock *sk) {
  u64 socket = address_of(sk);
  struct connection *c = slot_at(set_of(socket, false), home_of(socket));

  return c && c->socket == socket ? c : NULL;
}

static __always_inline struct connection *find_elsewhere(struct sock *sk) {
  u64 socket = address_of(sk);
  struct connection *c = find_in(set_of(socket, false), socket);

  return c ? c : find_in(set_of(socket, true), socket);
}

static __always_inline struct connection *find(struct sock *sk) {
  struct connection *c = find_at_home(sk);

  return c ? c : find_elsewhere(sk);
}

/* 1 where the other side has ended its stream: the kernel counts its FIN as a byte. */
static __always_inline u32 fin(struct sock *sk, bool direct) {
  return READ(direct, &sk->__sk_common, skc_flags) >> SOCK_DONE & 1;
}

/* Bytes of data that have come. */
static __always_inline u64 received(struct sock *sk, struct tcp_sock *tp, bool direct) {
  return READ(direct, tp, bytes_received) - fin(sk, direct);
}

/* How many bytes a place in the other side's stream is behind c->received; negative: before it. The stream begins where
 * `id` says. */
static __always_inline s64 beyond(struct connection *c, u32 sequence) {
  u32 begin = c->endpoint.side == SIDE_CLIENT ? c->id : c->id >> 32;

  return (s32)(sequence - begin - (u32)c->received);
}

/* What is handed over next has to lie behind this: a response behind all that came before its request, a request behind
 * what the server has taken. */
static __always_inline void mark(struct connection *c, struct sock *sk, struct tcp_sock *tp, bool direct) {
  if (c->endpoint.side == SIDE_CLIENT)
    c->received += beyond(c, READ(direct, tp, rcv_nxt) - fin(sk, direct));
  else
    c->received += beyond(c, READ(direct, tp, copied_seq));
}

/* The kernel's own figures of the connection. */
static __always_inline void read_transport(struct connection *c, struct tcp_sock *tp, bool direct) {
  c->sent = READ(direct, tp, bytes_sent) - READ(direct, tp, bytes_retrans);
  c->retransmits = READ(direct, tp, total_retrans);
  c->srtt_us = READ(direct, tp, srtt_us) >> 3;
}

static __always_inline void keep_totals(struct connection *c) {
  u32 side = c->endpoint.side;
  struct moments *kept = undelivered.lookup(&side);
  struct moments moments = {c->events, c->sum, c->min, c->max, c->square_low, c->square_high};

  if (kept)
    moments_merge(kept, &moments);
}

/* The record goes to user space; its slot may be used again. */
static __always_inline void hand_over(struct connection *c, u8 end) {
  struct counters *count = this_cpu_counters();
  struct connection *copy = closed.ringbuf_reserve(sizeof(*copy));

  COUNT(closed);
  if (end == END_EVICTED)
    COUNT(evicted);
  if (c->start > UNTIMED)
    COUNT(unanswered);
  if (!copy) {
    COUNT(closed_lost);
    keep_totals(c);
    return;
  }
  __builtin_memcpy(copy, c, sizeof(*copy));
  copy->endpoint.end = end;
  /* A wake-up costs microseconds: one for many records. */
  closed.ringbuf_submit(copy, count && count->closed % CLOSED_WAKE ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
}

static __always_inline bool is_free(u32 set, u32 way) {
  struct connection *c = slot_at(set, way);

  return c && !c->socket;
}

static __always_inline void untag(u32 set, u64 socket) {
  struct set_tags *t = tags.lookup(&set);

  if (!t)
    return;
#pragma unroll
  for (u32 way = 0; way < WAYS; way++)
    if (t->tag[way] == tag_of(socket) && is_free(set, way))
      t->tag[way] = 0;
}

static __always_inline void forget(struct connection *c) {
  u64 socket = c->socket;

  hand_over(c, END_CLOSED);
  c->socket = 0;
  untag(set_of(socket, false), socket);
  untag(set_of(socket, true), socket);
}

/* All ones where the number is negative, else 0. A branch would do, but the verifier follows both sides of each, in
 * every program; clang would make one of it, if it saw what this is. */
static __always_inline u64 if_negative(u64 number) {
  asm volatile("%0 s>>= 63" : "+r"(number));
  return number;
}

/* How many of a set's slots are free, and in `vacant` the first of them from the socket's home on. */
static __always_inline u32 count_free(u32 set, u32 home, u32 *vacant) {
  struct set_tags *t = tags.lookup(&set);
  u64 free = 0, found = 0;

  if (!t)
    return 0;
#pragma unroll
  for (u32 i = WAYS; i-- > 0;) {
    u32 way = (home + i) % WAYS;
    u64 tag = t->tag[way], mask = ~if_negative(-tag);

    free += mask & 1;
    found = (found & ~mask) | (way & mask);
  }
  *vacant = set * WAYS + found;
  return free;
}

/* The slot of two sets that was used longest ago. */
static __always_inline u32 oldest_of(u32 first, u32 second) {
  u32 now = bpf_ktime_get_ns() >> TICK;
  u64 longest = 0, oldest = first * WAYS;

#pragma unroll
  for (u32 i = 0; i < 2 * WAYS; i++) {
    u32 slot = (i < WAYS ? first : second) * WAYS + i % WAYS;
    struct connection *c = connections.lookup(&slot);
    u64 age, older;

    if (!c)
      break;
    age = (u32)(now - c->used);
    older = if_negative(longest - age);
    longest = (longest & ~older) | (age & older);
    oldest = (oldest & ~older) | (slot & older);
  }
  return oldest;
}

/* A free slot of the emptier one of the socket's two sets, from its home on; else the one that was used longest ago. */
static __always_inline u32 choose(u32 first, u32 second, u32 home) {
  u32 in_first = 0, in_second = 0;
  u32 first_free = count_free(first, home, &in_first), second_free = count_free(second, home, &in_second);

  if (!first_free && !second_free)
    return oldest_of(first, second);
  return first_free >= second_free ? in_first : in_second;
}

/* There is no compare-and-exchange before 5.12, but who adds one and then reads one is alone. */
static __always_inline bool try_lock(u64 *lock) {
  __sync_fetch_and_add(lock, 1);
  if (*(volatile u64 *)lock == 1)
    return true;
  __sync_fetch_and_add(lock, -1);
  return false;
}

static __always_inline struct connection *fill(u32 slot, struct sock *sk, u8 side, u8 origin, bool direct) {
  struct connection *c = connections.lookup(&slot);
  struct tcp_sock *tp = tcp_sock_of(sk, direct);
  u32 set = slot / WAYS;
  struct set_tags *t = tags.lookup(&set);

  if (!c || !t || !tp)
    return NULL;
  t->tag[slot % WAYS] = 0;
  if (c->socket)
    hand_over(c, END_EVICTED);
  __builtin_memset(c, 0, sizeof(*c));
  read_addresses(&c->endpoint.addresses, sk);
  c->id = connection_id(sk, side == SIDE_CLIENT, direct);
  c->endpoint.side = side;
  c->endpoint.origin = origin;
  c->received = READ(direct, tp, bytes_received);
  mark(c, sk, tp, direct);
  c->used = bpf_ktime_get_ns() >> TICK;
  c->socket = address_of(sk);
  t->tag[slot % WAYS] = tag_of(c->socket);
  COUNT(connections);
  return c;
}

/* A record for this socket, or NULL where another CPU is changing its sets: the socket's next event tries again. */
static __always_inline struct connection *add(struct sock *sk, u8 side, u8 origin, bool direct) {
  u32 first = set_of(address_of(sk), false), second = set_of(address_of(sk), true);
  u32 first_lock = first % LOCKS, second_lock = second % LOCKS;
  u64 *one = locks.lookup(&first_lock), *two = locks.lookup(&second_lock);
  struct connection *c = NULL;

  if (!one || !two)
    return NULL;
  if (try_lock(one)) {
    if (one == two || try_lock(two)) {
      c = fill(choose(first, second, home_of(address_of(sk))), sk, side, origin, direct);
      if (one != two)
        __sync_fetch_and_add(two, -1);
    }
    __sync_fetch_and_add(one, -1);
  }
  if (!c)
    COUNT(contended);
  return c;
}

/* A connection whose birth was not seen. One that is not established yet is going to be born, one that has ended would
 * stay for good. */
static __always_inline struct connection *add_unseen(struct sock *sk, bool direct) {
  u32 state = 1 << READ(direct, &sk->__sk_common, skc_state);
  u8 side = is_accepted(sk, direct) ? SIDE_SERVER : SIDE_CLIENT;

  if (!(state & CONNECTED))
    return NULL;
  return add(sk, side, ORIGIN_UNSEEN, direct);
}

/* The process that began the exchange. Programs in softirq must not come here. */
static __always_inline void own(struct connection *c) {
  u32 pid = bpf_get_current_pid_tgid() >> 32;
  struct owner_name owner;

  if (LIKELY(c->pid == pid))
    return;
  __builtin_memset(&owner, 0, sizeof(owner));
  c->pid = pid;
  bpf_get_current_comm(owner.name, sizeof(owner.name));
  owners.update(&pid, &owner);
}

static __always_inline u64 begin(struct connection *c) {
  u64 now;

  if (SAMPLE != 0xffffffff && bpf_get_prandom_u32() > SAMPLE) {
    COUNT(sampled_out);
    return UNTIMED;
  }
  now = bpf_ktime_get_ns();
  c->used = now >> TICK;
  return now;
}

#ifdef EVENT_PAGES
static __always_inline void emit(struct connection *c, u64 now, u64 latency, u64 wait) {
  struct counters *count = this_cpu_counters();
  struct event *e = events.ringbuf_reserve(sizeof(*e));

  COUNT(events);
  if (!e) {
    COUNT(events_lost);
    return;
  }
  e->time = now;
  e->latency = latency;
  e->wait = wait;
  e->socket = c->socket;
  e->endpoint = c->endpoint;
  e->pid = c->pid;
  e->srtt_us = c->srtt_us;
  events.ringbuf_submit(e, count && count->events % EVENT_WAKE ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
}
#else
static __always_inline void distribute(u32 measure, u64 value) {
  struct histogram *h = histograms.lookup(&measure);

  if (h)
    histogram_add(h, value);
}
#endif

/* An exchange ended now. */
static __always_inline void finish(struct connection *c, struct sock *sk, u64 now, u64 wait, bool direct) {
  bool client = c->endpoint.side == SIDE_CLIENT;
  u64 latency = now - c->start, high = c->square_high;

  if (UNLIKELY(now < c->start)) {
    COUNT(clock);
    return;
  }
  if (UNLIKELY(latency > OUTLIER_NS)) {
    COUNT(outliers);
    return;
  }
  if (!c->events || latency < c->min)
    c->min = latency;
  if (latency > c->max)
    c->max = latency;
  if (wait != UNSEEN)
    c->wait += wait;
  else
    c->unsplit += 1;
  c->sum += latency;
  add_square(&c->square_low, &high, latency);
  c->square_high = high;
  if (UNLIKELY((c->used ^ (u32)(now >> TICK)) >> TRANSPORT_TICKS || !c->events)) {
    struct tcp_sock *tp = surely_tcp_sock(sk, direct);

    if (tp)
      read_transport(c, tp, direct);
  }
  c->used = now >> TICK;
  c->events += 1;
#ifdef EVENT_PAGES
  emit(c, now, latency, wait);
#else
  distribute(client ? MEASURE_REQUEST : MEASURE_SERVICE, latency);
  if (wait != UNSEEN) {
    distribute(client ? MEASURE_WAKEUP : MEASURE_PICKUP, wait);
    if (client)
      distribute(MEASURE_WIRE, latency - wait);
  }
#endif
}

/* Under the socket's lock, in the sender's context, before anything was queued. */
static __always_inline void send(struct sock *sk, bool direct) {
  struct connection *c = find_at_home(sk);
  struct tcp_sock *tp;

  if (!c)
    goto elsewhere;
found:
  if (c->endpoint.side == SIDE_CLIENT) {
    if (c->start) /* more of a request, or another one before the answer */
      return;
    if (c->endpoint.more) {
      tp = surely_tcp_sock(sk, direct);
      if (tp) /* it may be more than `beyond` can say */
        c->received = received(sk, tp, direct);
      c->endpoint.more = 0;
    }
    c->start = begin(c);
    c->ready = 0;
    own(c);
    return;
  }
  if (!c->start) /* more of a response, or something nobody asked for */
    return;
  if (c->start != UNTIMED)
    finish(c, sk, bpf_ktime_get_ns(), c->ready > UNTIMED ? c->start - c->ready : UNSEEN, direct);
  c->start = 0;
  c->ready = c->endpoint.more ? UNTIMED : 0; /* the next request is there already */
  c->endpoint.more = 0;
  return;

elsewhere: /* at the end: what nearly every event runs through lies together */
  c = find_elsewhere(sk);
  if (!c)
    c = add_unseen(sk, direct);
  if (c)
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
static __always_inline void receive_request(struct connection *c, struct tcp_sock *tp, bool direct) {
  if (c->start) { /* more of a request, or another one before the answer */
    if (c->endpoint.more && READ(direct, tp, copied_seq) == READ(direct, tp, rcv_nxt))
      c->endpoint.more = 0;
  } else if (c->ready) {
    c->start = begin(c);
    own(c);
  }
}

/* A client's program was handed data of a response. */
static __always_inline void receive_response(struct connection *c, struct sock *sk, bool direct) {
  u64 now;

  if (c->start != UNTIMED) {
    now = bpf_ktime_get_ns();
    finish(c, sk, now, now - c->ready, direct);
  }
  c->start = 0;
}

/* Under the socket's lock, in the reader's context, after each segment that was copied. */
static __always_inline void receive(struct sock *sk, bool direct) {
  struct connection *c = find_at_home(sk);
  struct tcp_sock *tp;

  if (!c)
    goto elsewhere;
found:
  /* more of a response */
  if (c->endpoint.side == SIDE_CLIENT && (!c->start || !c->ready))
    return;
  tp = surely_tcp_sock(sk, direct);
  if (!tp || beyond(c, READ(direct, tp, copied_seq)) <= 0) /* a peek, a read of no bytes, the rest of a response */
    return;
  mark(c, sk, tp, direct);
  if (c->endpoint.side == SIDE_CLIENT)
    receive_response(c, sk, direct);
  else
    receive_request(c, tp, direct);
  return;

elsewhere:
  c = find_elsewhere(sk);
  if (!c)
    c = add_unseen(sk, direct);
  if (c)
    goto found;
}
ON_FIRST_ARGUMENT(receive, receive)

static __always_inline void arrived(struct connection *c) {
  bool client = c->endpoint.side == SIDE_CLIENT;

  if (client ? !c->start : c->start != 0) {
    if (!c->endpoint.more)
      c->endpoint.more = 1;
  } else if (!c->ready) {
    c->ready = (client ? c->start != UNTIMED : PICKUP) ? bpf_ktime_get_ns() : UNTIMED;
  }
}

/* In softirq, or with the socket's backlog, when data can be read. */
static __always_inline void readable(struct sock *sk, bool direct) {
  struct connection *c = find_at_home(sk);

  if (!c)
    goto elsewhere;
found:
  arrived(c);
  return;

elsewhere:
  c = find_elsewhere(sk);
  if (c)
    goto found;
}
ON_FIRST_ARGUMENT(readable, readable)

/* Kernels before 6.3 have no tracepoint for that: every segment is seen, and those without data are left out. */
int packet_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]);
  struct connection *c = find(sk);
  struct sk_buff *skb = opaque(ctx[1]);
  u8 header = 0;

  if (!c)
    return 0;
  bpf_probe_read_kernel(&header, sizeof(header), skb->head + skb->transport_header + TCP_DATA_OFFSET);
  if (skb->len > (header >> 4) * 4)
    arrived(c);
  return 0;
}

/* sk, old state, new state: everything that TCP does to a connection's life goes through here. */
int state_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]);
  int old = ctx[1], new = ctx[2];
  struct connection *c;
  struct tcp_sock *tp;

  if (new == TCP_ESTABLISHED && (old == TCP_SYN_SENT || old == TCP_SYN_RECV)) {
    if (!tcp_sock_of(sk, true)) /* MPTCP and SCTP go through these states too */
      return 0;
    c = find(sk);
    if (c) /* its death was missed and its address is used again */
      forget(c);
    add(sk, old == TCP_SYN_SENT ? SIDE_CLIENT : SIDE_SERVER, ORIGIN_BIRTH, true);
  } else if (new == TCP_CLOSE) {
    c = find(sk);
    if (c) {
      tp = tcp_sock_of(sk, true);
      if (tp) {
        read_transport(c, tp, true);
        c->received = received(sk, tp, true);
      }
      forget(c);
    }
  }
  return 0;
}
