// SPDX-License-Identifier: GPL-2.0-only
struct key { // HERE
  u32 id;
};

BPF_HASH(table, struct key, u64, 64);

int process_exit(u64 *ctx) {
  struct key key = {1};

  table.increment(key);
  return 0;
}
