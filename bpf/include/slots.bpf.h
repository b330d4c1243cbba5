/* SPDX-License-Identifier: GPL-2.0-only */
/* A table of connections in which one is found by its socket with a single look-up, changed in place, and evicted when
 * there is no room: sets of WAYS slots, and each socket has two of them.
 *
 * A tag tells whose a slot is, without the record: that one's cache line stays with the CPU that uses the socket. Who
 * makes or ends a record holds the set's lock; who changes one that is there needs none, as the socket's own lock makes
 * that one alone.
 *
 * The includer has defined SETS, WAYS, LOCKS and AWAY (powers of two), `struct connection` (with `socket`, 0 where the
 * slot is free, and `used`, in TICKs), and
 *
 *   struct connection_set {
 *     struct connection connection[WAYS];
 *     u32 tag[WAYS];  // 0: the slot is free
 *     u64 away[AWAY]; // see `put_away`
 *   };
 *
 * of whole cache lines.
 */
#pragma once

#include "programs.h"

#define TICK 16 /* 2^16 ns = 65 us: who was used longest ago */

struct connection_slot {
  struct connection_set *set; /* NULL: there is none */
  u32 way;
  struct connection *record;
};

/* Mappable is aligned to a page. */
BPF_F_TABLE("array", u32, struct connection_set, connections, SETS, BPF_F_MMAPABLE);
BPF_ARRAY(locks, u64, LOCKS);
BPF_ARRAY(forgotten, u64, 1); /* sockets that were evicted, and about which nothing is known any more */

#define HASH 0x9e3779b97f4a7c15ULL /* 2^64 / golden ratio: Fibonacci hashing */

/* A part of a socket's address, with two bits of other meaning: a TCP socket is larger than 1 KiB. Two with one tag
 * would have to be exactly 1 TiB apart, or a multiple of it, and of the same set. */
#define TAG_SHIFT 8
#define TAKEN 2
#define CLIENT 1

static __always_inline u32 tag_of(u64 socket) {
  return (u32)(socket >> TAG_SHIFT) | TAKEN | CLIENT;
}

/* A socket's two sets. */
static __always_inline u32 set_of(u64 socket, bool second) {
  u64 mixed = socket * HASH;
  u64 half = second ? (mixed ^ (mixed >> 29)) & 0xffffffff : mixed >> 32;

  return (half * SETS) >> 32;
}

static __always_inline struct connection_set *set_at(u32 number) {
  return connections.lookup(&number);
}

/* A place in a set, also for the verifier, which may have lost its bound. */
static __always_inline u32 bounded(u32 way) {
  asm volatile("" : "+r"(way));
  return way & (WAYS - 1);
}

static __always_inline struct connection_slot slot_of(struct connection_set *set, u32 way) {
  struct connection_slot slot = {set, way};

  if (set)
    slot.record = &set->connection[bounded(way)];
  return slot;
}

static __always_inline u32 home_of(u64 socket) {
  return (socket * HASH >> 20) % WAYS;
}

/* Where a socket would be in an empty table, which is where it nearly always is. */
static __always_inline struct connection_slot home(u64 socket) {
  return slot_of(set_at(set_of(socket, false)), home_of(socket));
}

static __always_inline struct connection_slot find_in(u32 number, u64 socket) {
  struct connection_set *set = set_at(number);
  u64 found = WAYS;

  if (!set)
    return slot_of(NULL, 0);
#pragma clang loop unroll(disable)
  for (u64 way = 0; way < WAYS; way++) {
    u64 other = (set->tag[way] | CLIENT) ^ tag_of(socket), differs = if_negative(other | -other);

    found = (found & differs) | (way & ~differs);
  }
  return slot_of(found < WAYS ? set : NULL, found);
}

static __always_inline struct connection_slot find_elsewhere(u64 socket) {
  struct connection_slot slot = find_in(set_of(socket, false), socket);

  return slot.set ? slot : find_in(set_of(socket, true), socket);
}

/* Of whom the record itself says whose it is: one cache line less than by the tags. */
static __always_inline struct connection_slot find_at_home(u64 socket) {
  struct connection_slot slot = home(socket);

  if (slot.set && slot.record->socket != socket)
    slot.set = NULL;
  return slot;
}

static __always_inline struct connection_slot find(u64 socket) {
  struct connection_slot slot = find_at_home(socket);

  return slot.set ? slot : find_elsewhere(socket);
}

/* A socket's slot, by its tag: the record's cache line stays with the CPU that uses the socket. */
static __always_inline struct connection_slot find_by_tag(u64 socket) {
  struct connection_slot slot = home(socket);

  if (slot.set && (slot.set->tag[bounded(slot.way)] | CLIENT) == tag_of(socket))
    return slot;
  return find_elsewhere(socket);
}

/* What is remembered of a socket whose record was evicted, in the set that it was in, and with that one's lock: so much
 * of its address that no other one has, whether it was busy with an exchange, which has been counted as lost, and the
 * lower bits of `place`; the bytes that a socket holds unread, and that place may be behind, are fewer. 0: nothing. */
#define AWAY_PLACE ((1U << 28) - 1)
#define AWAY_BUSY (1ULL << 28)
#define AWAY_SHIFT 29

/* How a word begins that is of this socket. */
static __always_inline u64 away_of(u64 socket) {
  return (socket >> TAG_SHIFT | 1) << AWAY_SHIFT;
}

/* One of the words that a socket may be remembered in: a row of WAYS, the newest first. */
static __always_inline u64 *away_word(struct connection_set *set, u64 socket, u32 i) {
  u32 place = (u32)(socket * HASH >> 16) * WAYS + i;

  asm volatile("" : "+r"(place)); /* as in `bounded` */
  return &set->away[place & (AWAY - 1)];
}

/* The oldest leaves a full row. */
static __always_inline void put_away(struct connection_set *set, u64 socket, u32 place, bool busy) {
  u64 same = away_of(socket), moved = same | (busy ? AWAY_BUSY : 0) | (place & AWAY_PLACE), *word, was, *lost;
  u32 zero = 0;

#pragma clang loop unroll(disable)
  for (u32 i = 0; i < WAYS; i++) {
    word = away_word(set, socket, i);
    was = *word;
    *word = moved;
    if (!was || !((was ^ same) >> AWAY_SHIFT))
      return;
    moved = was;
  }
  lost = forgotten.lookup(&zero);
  if (lost)
    __sync_fetch_and_add(lost, 1);
}

/* What is remembered of a socket, which is not needed any more. */
static __always_inline u64 take_back(struct connection_set *set, u64 socket) {
  u64 found = 0, *word;

#pragma clang loop unroll(disable)
  for (u32 i = 0; i < WAYS; i++) {
    word = away_word(set, socket, i);
    if (!((*word ^ away_of(socket)) >> AWAY_SHIFT)) {
      found = *word;
      *word = 0;
    }
  }
  return found;
}

/* How many of a set's slots are free, and in `vacant` the first of them from the socket's home on. */
static __always_inline u32 count_free(struct connection_set *set, u32 home, u32 *vacant) {
  u64 free = 0, found = 0;

#pragma clang loop unroll(disable)
  for (u32 i = WAYS; i-- > 0;) {
    u32 way = (home + i) % WAYS;
    u64 mask = ~if_negative(-(u64)set->tag[bounded(way)]);

    free += mask & 1;
    found = (found & ~mask) | (way & mask);
  }
  *vacant = found;
  return free;
}

/* The slot of two sets that was used longest ago. */
static __always_inline struct connection_slot oldest_of(struct connection_set *first, struct connection_set *second) {
  u32 now = bpf_ktime_get_ns() >> TICK;
  u64 longest = 0, oldest = 0;

#pragma clang loop unroll(disable)
  for (u32 i = 0; i < 2 * WAYS; i++) {
    struct connection_set *set = i < WAYS ? first : second;
    u64 age = (u32)(now - set->connection[i % WAYS].used), older = if_negative(longest - age);

    longest = (longest & ~older) | (age & older);
    oldest = (oldest & ~older) | (i & older);
  }
  return slot_of(oldest < WAYS ? first : second, oldest % WAYS);
}

/* A free slot of the emptier one of the socket's two sets, from its home on; else the one that was used longest ago. */
static __always_inline struct connection_slot choose(struct connection_set *first, struct connection_set *second,
                                                     u32 home) {
  u32 in_first = 0, in_second = 0;
  u32 first_free = count_free(first, home, &in_first), second_free = count_free(second, home, &in_second);

  if (!first_free && !second_free)
    return oldest_of(first, second);
  return first_free >= second_free ? slot_of(first, in_first) : slot_of(second, in_second);
}

static __always_inline void unlock(u64 *lock) {
  ADD(lock, -1);
}

static __always_inline bool try_lock(u64 *lock) {
#ifdef bpf_target_arm64
  bool alone = !fetch_add(lock, 1);
#else /* there is no compare-and-exchange before 5.12, but who adds one and then reads one is alone */
  bool alone = (ADD(lock, 1), *(volatile u64 *)lock == 1);
#endif

  if (!alone)
    unlock(lock);
  return alone;
}

/* A socket's two sets, of which nobody else is changing anything; NULL where another CPU is. */
struct locked_sets {
  struct connection_set *first;
  struct connection_set *second;
  u64 *one;
  u64 *two;
};

static __always_inline bool lock_sets(struct locked_sets *sets, u64 socket) {
  u32 first = set_of(socket, false), second = set_of(socket, true);
  u32 first_lock = first % LOCKS, second_lock = second % LOCKS;

  sets->first = set_at(first);
  sets->second = set_at(second);
  sets->one = locks.lookup(&first_lock);
  sets->two = locks.lookup(&second_lock);
  if (!sets->first || !sets->second || !sets->one || !sets->two || !try_lock(sets->one))
    return false;
  if (sets->one == sets->two || try_lock(sets->two))
    return true;
  unlock(sets->one);
  return false;
}

static __always_inline void unlock_sets(struct locked_sets *sets) {
  if (sets->one != sets->two)
    unlock(sets->two);
  unlock(sets->one);
}

/* The lock of one of a socket's two sets, held; NULL where others do not let go of it, such as a program that this one
 * has interrupted. They hold it for less than a microsecond. */
#define TRIES 64
static __always_inline u64 *lock_of(struct connection_set *set, u64 socket) {
  u32 first = set_of(socket, false), number = (set_at(first) == set ? first : set_of(socket, true)) % LOCKS;
  u64 *lock = locks.lookup(&number);

  if (!lock)
    return NULL;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < TRIES; i++)
    if (try_lock(lock))
      return lock;
  return NULL;
}

/* What either set remembers of a socket. */
static __always_inline u64 take_back_of(struct locked_sets *sets, u64 socket) {
  u64 found = take_back(sets->first, socket);

  return found | take_back(sets->second, socket);
}

/* A socket without a record has ended: its address may be another one's next. */
static __always_inline void forget_eviction(u64 socket) {
  struct locked_sets sets;

  if (!lock_sets(&sets, socket))
    return;
  take_back_of(&sets, socket);
  unlock_sets(&sets);
}
