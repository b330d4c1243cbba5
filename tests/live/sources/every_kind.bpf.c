/* One map of each kind that is drained, and one program that uses them all. */
#include "programs.h"

struct every_parameters {
  u32 skip;
};
struct every_count {
  u64 exits;
  u32 last[2];
};
struct every_slot {
  u64 used;
  u64 exits;
};

BPF_ARRAY(parameters, struct every_parameters, 1);
BPF_HASH(by_command, u32, struct every_count, 16);
BPF_PERCPU_ARRAY(counts, struct every_count, 2);
BPF_F_TABLE("array", u32, struct every_slot, slots, 4, BPF_F_MMAPABLE);
BPF_RINGBUF_OUTPUT(records, 1);
LAYOUT(records, struct every_count);

int process_exit(u64 *ctx) {
  struct every_parameters *given;
  struct every_count *count, none = {};
  struct every_slot *slot;
  u32 zero = 0, key = bpf_get_current_pid_tgid() & 7;

  given = parameters.lookup(&zero);
  if (!given || given->skip)
    return 0;
  count = by_command.lookup_or_try_init(&key, &none);
  if (count)
    count->exits += 1;
  count = counts.lookup(&zero);
  if (count)
    count->exits += 1;
  slot = slots.lookup(&zero);
  if (slot)
    slot->used = 1;
  records.ringbuf_output(&none, sizeof(none), 0);
  return 0;
}
