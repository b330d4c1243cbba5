// SPDX-License-Identifier: GPL-2.0-only
/* How long processes live. COMMANDS is defined by the plan (__init__.py). */
#include "histogram.h"
#include "programs.h"

struct yourprobe_name {
  char name[16];
};

struct yourprobe_command {
  u64 processes;
  u64 age; /* ns, sum */
};

struct counters {
  u64 commands_full; /* a name found no room */
};
#include "counters.bpf.h"

BPF_HASH(commands, struct yourprobe_name, struct yourprobe_command, COMMANDS);
BPF_PERCPU_ARRAY(ages, struct histogram, 1);

/* sched_process_exit(struct task_struct *task, ...), in the context of the thread that ends */
int process_exit(u64 *ctx) {
  struct task_struct *task = opaque(ctx[0]);
  struct yourprobe_name name = {};
  struct yourprobe_command none = {}, *command;
  struct histogram *histogram;
  u32 zero = 0;
  u64 age;

  if (task->pid != task->tgid)
    return 0; /* a thread, not the process */
  age = bpf_ktime_get_ns() - task->start_time;
  histogram = ages.lookup(&zero);
  if (histogram)
    histogram_add(histogram, age);
  bpf_get_current_comm(&name.name, sizeof(name.name));
  command = commands.lookup_or_try_init(&name, &none);
  if (command) { /* processes of one name may end on several CPUs at once */
    __sync_fetch_and_add(&command->processes, 1);
    __sync_fetch_and_add(&command->age, age);
  } else {
    COUNT(commands_full);
  }
  return 0;
}
