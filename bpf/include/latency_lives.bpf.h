/* SPDX-License-Identifier: GPL-2.0-only */
/* How connections of the latency probe get a record, and how it leaves: at their end, or for another one. */
#pragma once

#include "latency_exchange.bpf.h"

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
