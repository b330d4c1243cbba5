// SPDX-License-Identifier: GPL-2.0-only
#include "programs.h"

struct seen {
  u64 count;
};

BPF_HASH(table, u32, struct seen, 64);

/* In a function that bcc inlines, after a comment
 * of two lines. */
static __always_inline void bump(u32 id) {
  struct seen *seen = table.lookup(&id);

  seen->count += 1; // HERE
}

int process_exit(u64 *ctx) {
  struct task_struct *task = opaque(ctx[0]);

  bump(task->pid);
  return 0;
}
