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
#include "histogram.h"
#include "moments.h"
#include "programs.h"
#include "socket.h"

#define TCP_DATA_OFFSET 12 /* of the byte in struct tcphdr that has the header's length */

/* States in which data goes to and fro, at least one way. */
#define CONNECTED (1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT)
#define UNSEEN ~0ULL
#define LONG_AGO 8    /* 2^(16+8) ns = 17 ms: how old transport figures may be against the last exchange */
#define FAR (1 << 30) /* bytes; places that are twice as far apart cannot be told from each other */

/* In place of a time: an exchange that is not measured is under way. */
#define UNTIMED 1 /* it is sampled out */
#define NOTED 2   /* it began before its record was evicted, and has been counted as lost */
#define MISSED 3  /* it began, or may have begun, while the connection had no record, whose eviction was forgotten */
#define OLDER 4   /* it began, or may have begun, before the connection was first seen */

/* In place of a time, too: the first part of the response was handed over, or sent. Below are the lower bits of when
 * that was, whose upper ones are in `used`, and below those how long it took from the begin. */
#define HANDED (1ULL << 63)
#define GOES_ON (1ULL << 62) /* and more of it since: `lasted` has how long */
#define TIME_BITS 36         /* 68 s; no exchange that is measured takes longer */
#define TIME ((1ULL << TIME_BITS) - 1)
#define MOMENT ((1ULL << 48) - 1) /* what is kept of a moment, in all */
#define GAP_MIN 35000000ULL       /* ns; a delayed acknowledgement takes 40 to 200 ms */
#define GAP_MAX 250000000ULL
#define GAP (TIME + 1) /* in `lasted`: a client's gaps, or how long a server's peer had no room, in jiffies */
#define GAPS (0xfffULL * GAP)
#define RTT_SHIFT 48 /* above them the smallest round-trip time, in steps of 4 us */
#define RTT_MOST 0xffff

/* Of a word that has a latency in its upper bits the lower ones, which have something else that is seldom changed; of
 * the number of exchanges those that have the upper bits of another number. */
#define REST ((1ULL << REST_BITS) - 1)
#define EVENT (1ULL << HIGH_BITS)

/* 128 bytes, two cache lines: what every exchange changes is in the first one. Bytes have 48 bits, which is 281 TB. */
struct connection {
  u64 socket; /* the kernel's address of it; 0: the slot is free */
  u64 start;  /* ns; 0: no exchange under way; HANDED: its response has begun */
  u32 place;  /* in the other side's stream: what is handed over next has to lie behind it; while a server answers, the
               * end of what belongs to the request; while a client is handed a response, the end of what it has */
  u32 used;   /* in TICKs, for who leaves first */
  u32 pid;
  u8 side;
  u8 origin;
  u16 sent_high;
  u64 events_received_high; /* in EVENTs, and the upper 16 bits of the bytes received */
  u64 sum;
  u64 square_low;
  u64 wait; /* ns, sum: data at the socket until handed over */

  u64 min_unsplit; /* with how many exchanges' `wait` was looked for and not seen; REST of them: or more */
  u64 max_srtt_us; /* with the kernel's smoothed round-trip time */
  u64 unsplit_sum; /* ns: those exchanges, up to the first of their response */
  u32 square_high;
  struct addresses addresses;
};

/* The kernel's figures of a connection. */
struct connection_transport {
  u32 id_low;
  u32 id_high;
  u32 sent_low;
  u32 received_low;
  u32 retransmits;
};

/* Eight connections, in whole cache lines. */
struct connection_set {
  u64 arrival[WAYS]; /* see `arrive` */
  struct connection connection[WAYS];
  struct connection_transport transport[WAYS];
  u32 tag[WAYS];         /* of the sockets' addresses, with CLIENT at those of clients; 0: the slot is free */
  u64 lasted[WAYS];      /* ns since the first part of a response; above, GAPS and the smallest RTT */
  u64 transferred[WAYS]; /* ns, sum: the same of all exchanges that are over */
  u64 away[AWAY];        /* see `put_away` */
#if PICKUP
  u64 arrived[WAYS]; /* ns; when the data in `arrival` reached the socket */
  u64 ready[WAYS];   /* ns; the same of the exchange under way; 0 where it was not seen */
#endif
#ifdef EVENT_PAGES
  u64 waited[WAYS];      /* ns; of the exchange whose response has begun */
  u32 sent_before[WAYS]; /* lower bits of the connection's figures when the exchange began */
  u32 received_before[WAYS];
  u32 retransmits_before[WAYS];
  u32 unused[WAYS];
#endif
};

_Static_assert(sizeof(struct connection) == 128, "two cache lines");
_Static_assert(__builtin_offsetof(struct connection_set, connection) % 64 == 0, "in whole cache lines");
_Static_assert(sizeof(struct connection_set) % 64 == 0, "in whole cache lines");

struct ended_connection {
  struct connection connection;
  struct connection_transport transport;
  u32 end;
  u64 lasted;
  u64 transferred;
};

struct event {
  u64 time;     /* ns, CLOCK_MONOTONIC, of its end */
  u64 latency;  /* up to the first of the response */
  u64 transfer; /* from there to the last */
  u64 wait;     /* ns: data at the socket until handed over; UNSEEN where its arrival was not seen */
  u64 socket;
  u8 side;
  u8 origin;
  u8 unused[2];
  struct addresses addresses;
  u32 pid;
  u32 srtt_us;
  u32 bytes; /* of the response */
  u32 retransmits;
  u32 padding;
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
  u64 cut;         /* exchanges that are not measured, because their connection had made room */
  u64 older;       /* exchanges that are not measured, because their connection was not known when they began */
  u64 contended;   /* two CPUs wanted the same set; tried again at the socket's next event */
  u64 outliers;
  u64 sampled_out;
  u64 unanswered; /* closed with an exchange under way */
  u64 clock;      /* end before start: cannot be, so it is counted */
  u64 held_back;  /* slow exchanges beyond the rate */
  u64 streams;    /* responses that went on for too long, of which the first part counts alone */
};

#include "counters.bpf.h"
#include "slots.bpf.h"
#ifdef EVENT_PAGES
#include "rate.bpf.h"
#endif

/* Of connections that found no room in the ring buffer, so that the totals are whole all the same. */
BPF_PERCPU_ARRAY(undelivered, struct moments, SIDES);
BPF_TABLE("lru_hash", u32, struct owner_name, owners, OWNERS);
BPF_RINGBUF_OUTPUT(closed, CLOSED_PAGES);
LAYOUT(closed, struct ended_connection);
#ifdef EVENT_PAGES
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
LAYOUT(events, struct event);
#endif
#if COUNTED
BPF_PERCPU_ARRAY(histograms, struct histogram, MEASURES);
/* Of responses in several parts, one for all CPUs: there are fewer of them, and the table is large. */
BPF_ARRAY(longer, struct histogram, LONGERS);
#endif

/* 1 where the other side has ended its stream: the kernel counts its FIN as a byte. */
static __always_inline u32 fin(struct sock *sk, bool direct) {
  return READ(direct, &sk->__sk_common, skc_flags) >> SOCK_DONE & 1;
}

/* The kernel's own figures of the connection. */
static __always_inline void read_transport(struct connection_slot slot, struct sock *sk, struct tcp_sock *tp,
                                           bool direct) {
  struct connection_transport *t = &slot.set->transport[bounded(slot.way)];
  struct connection *c = slot.record;
  u64 sent = READ(direct, tp, bytes_sent) - READ(direct, tp, bytes_retrans);
  u64 received = READ(direct, tp, bytes_received) - fin(sk, direct);
  u64 srtt_us = READ(direct, tp, srtt_us) >> 3, rtt = READ(direct, tp, rtt_min.s[0].v) >> 2;
  u64 *lasted = &slot.set->lasted[bounded(slot.way)];

  *lasted = (*lasted & (TIME | GAPS)) | (rtt < RTT_MOST ? rtt : RTT_MOST) << RTT_SHIFT;
  if (c->side == SIDE_SERVER) {
    u64 limited = READ(direct, tp, chrono_stat[TCP_CHRONO_RWND_LIMITED - 1]); /* jiffies */

    *lasted = (*lasted & ~GAPS) | (limited < GAPS / GAP ? limited * GAP : GAPS);
  }
  t->sent_low = sent;
  c->sent_high = sent >> 32;
  t->received_low = received;
  c->events_received_high = (c->events_received_high & -EVENT) | (u16)(received >> 32);
  t->retransmits = READ(direct, tp, total_retrans);
  c->max_srtt_us = (c->max_srtt_us & ~REST) | (srtt_us < REST ? srtt_us : REST);
}

/* What the CPU that takes packets in says: in the lower bits the nanoseconds at which data came to a socket that had
 * nothing left to be read, above them the end of that data in the stream. One word, so that it is written at once, and
 * all that it is made from is the kernel's own and at hand there. */
static __always_inline void arrive(struct connection_slot slot, u32 copied, u32 end, bool all_read, u64 now) {
  u64 *arrival = &slot.set->arrival[bounded(slot.way)];
  u64 last = *arrival >> TIME_BITS << TIME_BITS;

  if (!all_read && (s64)(((u64)copied << TIME_BITS) - last) < 0)
    return;
  *arrival = (u64)end << TIME_BITS | (now & TIME);
#if PICKUP
  slot.set->arrived[bounded(slot.way)] = now;
#endif
}

/* The next arrival counts once what comes before `place` was read, and none has been seen. With the socket's lock. */
static __always_inline void expect_arrival(struct connection_slot slot, u32 place) {
  slot.set->arrival[bounded(slot.way)] = (u64)place << TIME_BITS;
}

/* The part of a moment that is kept, of the first part of the response. */
static __always_inline u64 first_of(struct connection *c) {
  return (u64)c->used << TICK | (c->start >> TIME_BITS & 0xffff);
}

#ifdef EVENT_PAGES
/* The connection's figures when an exchange begins. */
static __always_inline void remember_begin(struct connection_slot slot, struct tcp_sock *tp, bool direct) {
  u32 way = bounded(slot.way);

  slot.set->sent_before[way] = READ(direct, tp, bytes_sent) - READ(direct, tp, bytes_retrans);
  slot.set->received_before[way] = READ(direct, tp, bytes_received);
  slot.set->retransmits_before[way] = READ(direct, tp, total_retrans);
}

#if SLOW_SHARE
/* What the slowest take, for each side, in 2^-SLOW_BITS ns. */
#define SLOW_BITS 20
BPF_PERCPU_ARRAY(slow_bounds, u64, SIDES);

/* The bound goes up with each exchange that is above it, and down with each that is not, so that it comes to rest where
 * the share of SLOW_SHARE * 2^-24 is above it. */
static __always_inline bool is_among_slowest(u32 side, u64 took) {
  u64 *bound = slow_bounds.lookup(&side), step;

  if (!bound)
    return false;
  if (!*bound)
    *bound = took << SLOW_BITS;
  step = *bound >> 5;
  if (took << SLOW_BITS > *bound) {
    *bound += step;
    return true;
  }
  *bound -= (step >> 12) * SLOW_SHARE >> 12;
  return false;
}
#else
static __always_inline bool is_among_slowest(u32 side, u64 took) {
  return !SLOW_NS;
}
#endif

static __always_inline bool is_wanted(u32 side, u64 took) {
  return (SLOW_NS && took >= SLOW_NS) || is_among_slowest(side, took);
}

/* An exchange is over; those that are not slow enough are nobody's business. */
static __always_inline void emit(struct connection_slot slot, u64 latency, u64 transfer) {
  struct connection *c = slot.record;
  struct connection_transport *t = &slot.set->transport[bounded(slot.way)];
  u32 way = bounded(slot.way);
  struct event *e;
  u64 now;

  if (!is_wanted(c->side, latency + transfer))
    return;
  now = bpf_ktime_get_ns();
  if (SLOW_RATE && !within_rate(now, SLOW_RATE)) {
    COUNT(held_back);
    return;
  }
  e = events.ringbuf_reserve(sizeof(*e));
  COUNT(events);
  if (!e) {
    COUNT(events_lost);
    return;
  }
  e->time = now - ((now - first_of(c)) & MOMENT) + transfer;
  e->latency = latency;
  e->transfer = transfer;
  e->wait = slot.set->waited[bounded(slot.way)];
  e->socket = c->socket;
  e->side = c->side;
  e->origin = c->origin;
  e->addresses = c->addresses;
  e->pid = c->pid;
  e->srtt_us = c->max_srtt_us & REST;
  e->bytes = c->side == SIDE_CLIENT ? t->received_low - slot.set->received_before[way]
                                    : t->sent_low - slot.set->sent_before[way];
  e->retransmits = t->retransmits - slot.set->retransmits_before[way];
  e->padding = 0;
  events.ringbuf_submit(e, WAKE_EACH(EVENT_WAKE, events));
}
static __always_inline void remember_wait(struct connection_slot slot, u64 wait) {
  slot.set->waited[bounded(slot.way)] = wait;
}
#else
static __always_inline void emit(struct connection_slot slot, u64 latency, u64 transfer) {
}
static __always_inline void remember_begin(struct connection_slot slot, struct tcp_sock *tp, bool direct) {
}
static __always_inline void remember_wait(struct connection_slot slot, u64 wait) {
}
#endif

#if COUNTED
static __always_inline void distribute(u32 measure, u64 value) {
  struct histogram *h = histograms.lookup(&measure);

  if (h)
    histogram_add(h, value);
}
static __always_inline void distribute_longer(u32 measure, u64 value) {
  struct histogram *h = longer.lookup(&measure);

  if (h)
    histogram_add_shared(h, value);
}
#else
static __always_inline void distribute(u32 measure, u64 value) {
} /* user space does it */
static __always_inline void distribute_longer(u32 measure, u64 value) {
}
#endif

/* Counts what an exchange took. */
static __always_inline void keep(struct connection *c, u64 latency) {
  if (latency < c->min_unsplit >> REST_BITS)
    c->min_unsplit = latency << REST_BITS | (c->min_unsplit & REST);
  if (latency > c->max_srtt_us >> REST_BITS)
    c->max_srtt_us = latency << REST_BITS | (c->max_srtt_us & REST);
  c->sum += latency;
  c->square_high += add_square(&c->square_low, latency);
  c->events_received_high += EVENT;
}

/* The first part of a response is there. `used` has been set. */
static __always_inline void hand(struct connection *c, u64 now, u64 latency) {
  c->start = HANDED | (now & 0xffff) << TIME_BITS | latency;
}

/* More of a response is there. */
static __always_inline void prolong(struct connection_slot slot, u64 now) {
  u64 *lasted = &slot.set->lasted[bounded(slot.way)], before = slot.record->start & GOES_ON ? *lasted & TIME : 0;
  u64 lasts = (now - first_of(slot.record)) & MOMENT, above = *lasted & ~TIME;

  if (lasts > TIME)
    lasts = TIME;
  if (slot.record->side == SIDE_CLIENT && lasts - before - GAP_MIN <= GAP_MAX - GAP_MIN && (above & GAPS) != GAPS)
    above += GAP;
  *lasted = above | lasts;
  slot.record->start |= GOES_ON;
}

/* An exchange is over whose response has begun. */
static __always_inline void settle(struct connection_slot slot, bool client) {
  struct connection *c = slot.record;
  u64 latency = c->start & TIME, transfer = 0, *lasted;

  if (c->start & GOES_ON)
    goto goes_on;
settled:
  emit(slot, latency, transfer);
  c->start = 0;
  if (client)
    keep(c, FIRST_BYTES ? latency : latency + transfer);
  return;

goes_on:
  lasted = &slot.set->lasted[bounded(slot.way)];
  transfer = *lasted & TIME;
  *lasted &= ~TIME;
  if (transfer > OUTLIER_NS - (client ? latency : 0)) {
    COUNT(streams);
    transfer = 0;
  }
  slot.set->transferred[bounded(slot.way)] += transfer;
  distribute_longer(client ? LONGER_TRANSFER : LONGER_REPLY, transfer);
  if (client) {
    distribute_longer(LONGER_FIRST_BYTE, latency);
    distribute_longer(LONGER_REQUEST, latency + transfer);
  }
  goto settled;
}

static __always_inline void keep_totals(struct connection *c) {
  u32 side = c->side;
  struct moments *kept = undelivered.lookup(&side);
  struct moments moments = {
      .events = c->events_received_high / EVENT,
      .sum = c->sum,
      .min = c->min_unsplit >> REST_BITS,
      .max = c->max_srtt_us >> REST_BITS,
      .square_low = (u32)c->square_low,
      .square_middle = c->square_low >> 32,
      .square_high = c->square_high,
  };

  if (kept)
    moments_merge(kept, &moments);
}

/* The record goes to user space; its slot may be used again. */
static __always_inline void hand_over(struct connection_slot slot, u8 end) {
  struct connection *c = slot.record;
  struct ended_connection *copy;

  if (c->start & HANDED)
    settle(slot, c->side == SIDE_CLIENT);
  COUNT(closed);
  if (end == END_EVICTED)
    COUNT(evicted);
  else if (c->start > NOTED)
    COUNT(unanswered);
  copy = closed.ringbuf_reserve(sizeof(*copy));
  if (!copy) {
    COUNT(closed_lost);
    keep_totals(c);
    return;
  }
  __builtin_memcpy(&copy->connection, c, sizeof(*c));
  __builtin_memcpy(&copy->transport, &slot.set->transport[bounded(slot.way)], sizeof(copy->transport));
  copy->end = end;
  copy->lasted = slot.set->lasted[bounded(slot.way)];
  copy->transferred = slot.set->transferred[bounded(slot.way)];
  closed.ringbuf_submit(copy, WAKE_EACH(CLOSED_WAKE, closed));
}

/* An exchange that is not measured is lost. */
static __always_inline void miss(u64 start) {
  if (start == MISSED)
    COUNT(cut);
  if (start == OLDER)
    COUNT(older);
}

/* The record makes room for another connection's. */
static __always_inline void evict(struct connection_slot slot) {
  struct connection *c = slot.record;
  u64 start = c->start & HANDED ? 0 : c->start;

  if (start > OLDER)
    COUNT(cut);
  miss(start);
  put_away(slot.set, c->socket, c->place, start != 0);
  hand_over(slot, END_EVICTED);
}

static __always_inline bool fill(struct connection_slot slot, struct sock *sk, u8 side, u8 origin, bool direct) {
  struct connection *c = slot.record;
  struct tcp_sock *tp = tcp_sock_of(sk, direct);
  u32 way = bounded(slot.way);
  u64 id;

  if (!tp)
    return false;
  slot.set->tag[way] = 0;
  ORDER(&c->socket);
  if (c->socket)
    evict(slot);
  __builtin_memset(c, 0, sizeof(*c));
  slot.set->lasted[way] = 0;
  slot.set->transferred[way] = 0;
  read_addresses(&c->addresses, sk);
  read_transport(slot, sk, tp, direct);
  id = connection_id(sk, side == SIDE_CLIENT, direct);
  slot.set->transport[way].id_low = id;
  slot.set->transport[way].id_high = id >> 32;
  c->side = side;
  c->origin = origin;
  c->place = READ(direct, tp, rcv_nxt);
  c->min_unsplit = ~REST;
  c->used = bpf_ktime_get_ns() >> TICK;
  expect_arrival(slot, c->place);
  c->socket = address_of(sk);
  ORDER(&c->socket);
  slot.set->tag[way] = tag_of(c->socket) & (side == SIDE_CLIENT ? ~0 : ~CLIENT);
  COUNT(connections);
  return true;
}

/* A socket's record is over. Another connection may have been given its slot meanwhile, or may be given it now: with
 * the lock that is one of both. Without, who sees the slot free has to see that nobody is in it. */
static __always_inline void forget(struct connection_slot slot, u64 socket) {
  u64 *lock = lock_of(slot.set, socket);

  if (slot.record->socket == socket) {
    hand_over(slot, END_CLOSED);
    slot.record->socket = 0;
    ORDER(&slot.record->socket);
    slot.set->tag[bounded(slot.way)] = 0;
  }
  if (lock)
    unlock(lock);
}

/* A record for this socket, or none where another CPU is changing its sets: the socket's next event tries again. `was`
 * gets what is remembered of it. */
static __always_inline struct connection_slot add(struct sock *sk, u8 side, u8 origin, u64 *was, bool direct) {
  u64 socket = address_of(sk);
  struct connection_slot slot = {};
  struct locked_sets sets;

  if (!lock_sets(&sets, socket)) {
    COUNT(contended);
    return slot;
  }
  if (was)
    *was = take_back_of(&sets, socket);
  slot = choose(sets.first, sets.second, home_of(socket));
  if (!fill(slot, sk, side, origin, direct))
    slot.set = NULL;
  unlock_sets(&sets);
  return slot;
}

/* Whether a client has sent something last, as far as the kernel says: what it sends now may be the rest of it. */
static __always_inline bool has_spoken_last(struct sock *sk, bool direct) {
  struct tcp_sock *tp = surely_tcp_sock(sk, direct);
  s32 later;

  if (!tp || !READ(direct, tp, data_segs_out))
    return false;
  later = READ(direct, tp, lsndtime) - READ(direct, tp, inet_conn.icsk_ack.lrcvtime);
  return later > 0 || READ(direct, tp, snd_una) != READ(direct, tp, write_seq);
}

/* A record that has just been made goes on where the evicted one was. Where that is not known, what a server is handed
 * now may have begun before. */
static __always_inline void go_on(struct connection_slot slot, struct sock *sk, u64 was, bool sends, bool direct) {
  struct connection *c = slot.record;
  u64 *lost;
  bool begins = sends == (c->side == SIDE_CLIENT);
  u32 zero = 0;

  if (was) {
    c->place -= (c->place - (u32)was) & AWAY_PLACE; /* which was the end of all that has come */
    c->start = begins && was & AWAY_BUSY ? NOTED : 0;
    return;
  }
  lost = forgotten.lookup(&zero);
  if (begins && lost && *lost && c->side == SIDE_SERVER) /* it may be one of those */
    c->start = MISSED;
  else if (begins && (c->side == SIDE_SERVER || has_spoken_last(sk, direct)))
    c->start = OLDER;
}

/* A connection whose birth was not seen. One that is not established yet is going to be born, one that has ended would
 * stay for good. */
static __always_inline struct connection_slot add_unseen(struct sock *sk, bool sends, bool direct) {
  u32 state = 1 << READ(direct, &sk->__sk_common, skc_state);
  u8 side = is_accepted(sk, direct) ? SIDE_SERVER : SIDE_CLIENT;
  struct connection_slot slot = {};
  u64 was = 0;

  if (!(state & CONNECTED))
    return slot;
  slot = add(sk, side, ORIGIN_UNSEEN, &was, direct);
  if (slot.set)
    go_on(slot, sk, was, sends, direct);
  return slot;
}

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
