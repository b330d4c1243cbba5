/* SPDX-License-Identifier: GPL-2.0-only */
/* How an exchange of the latency probe goes on once its response has begun, and how it is counted when it is over. */
#pragma once

#include "latency_record.bpf.h"

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
