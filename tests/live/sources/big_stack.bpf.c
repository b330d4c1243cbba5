// SPDX-License-Identifier: GPL-2.0-only
#include "programs.h"

struct whole_path {
  char text[600];
};

BPF_HASH(table, u32, struct whole_path, 64);

static __always_inline void keep(u32 id, void *from) {
  struct whole_path path = {}; // HERE

  bpf_probe_read_kernel(&path.text, sizeof(path.text), from);
  table.update(&id, &path);
}

int process_exit(u64 *ctx) {
  struct task_struct *task = opaque(ctx[0]);

  keep(task->pid, task);
  return 0;
}
