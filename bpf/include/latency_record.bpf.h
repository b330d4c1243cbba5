/* SPDX-License-Identifier: GPL-2.0-only */
/* What the latency probe keeps of a connection, and the kernel's own figures of it. */
#pragma once

#include "histogram.h"
#include "moments.h"
#include "programs.h"
#include "socket.h"

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
