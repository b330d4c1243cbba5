/* SPDX-License-Identifier: GPL-2.0-only */
/* Log-linear histograms of nanoseconds, one copy for each CPU, or one for all (histogram_add_shared).
 *
 * Values below 2 * 2^HISTOGRAM_BITS have a bucket each; above, every power of two is cut into 2^HISTOGRAM_BITS
 * buckets. A bucket is thus at most 1/64 of its value wide, its middle at most 0.8 % off. Two histograms are merged by
 * adding them. probekit/aggregate/histogram.py is the reader.
 */
#pragma once

#include "programs.h"

#define HISTOGRAM_BITS 6
#define HISTOGRAM_BUCKETS 1984 /* up to 2^36 ns = 68.7 s */

struct histogram {
  u64 buckets[HISTOGRAM_BUCKETS];
};

static __always_inline u32 histogram_bucket(u64 value) {
  u64 rest = value >> (HISTOGRAM_BITS + 1), shift = 0, step;

  /* shift = number of bits above the first 2 * 2^HISTOGRAM_BITS values; there is no instruction for it. Without
   * branches: by the next event the CPU has forgotten which way they went. */
#pragma unroll
  for (u32 bits = 16; bits; bits /= 2) {
    step = if_negative(-(rest >> bits)) & bits;
    rest >>= step;
    shift += step;
  }
  shift += if_negative(-rest) & 1;
  return (shift << HISTOGRAM_BITS) + (u32)(value >> shift);
}

static __always_inline u32 histogram_place(u64 value) {
  u32 bucket = histogram_bucket(value);

  if (bucket >= HISTOGRAM_BUCKETS)
    bucket = HISTOGRAM_BUCKETS - 1;
  asm volatile("" : "+r"(bucket)); /* clang would merge this test with the next one, and the verifier lose its bound */
  return bucket;
}

static __always_inline void histogram_add(struct histogram *h, u64 value) {
  u32 bucket = histogram_place(value);

  if (bucket < HISTOGRAM_BUCKETS)
    h->buckets[bucket] += 1;
}

/* Of a histogram that all CPUs share. */
static __always_inline void histogram_add_shared(struct histogram *h, u64 value) {
  u32 bucket = histogram_place(value);

  if (bucket < HISTOGRAM_BUCKETS)
    __sync_fetch_and_add(&h->buckets[bucket], 1);
}
