/* SPDX-License-Identifier: GPL-2.0-only */
/* One body, one program for each way of attaching it.
 *
 * fentry programs and BTF tracepoints get their arguments as an array of u64 and may follow kernel pointers: the
 * verifier knows the types. A kprobe gets registers and has to ask for every field.
 */
#pragma once

/* bcc rewrites what it knows to be a kernel pointer into bpf_probe_read calls; behind this it no longer knows. */
static __always_inline void *opaque(u64 pointer) {
  asm volatile("" : "+r"(pointer));
  return (void *)pointer;
}

/* The address as a number to compute with. The verifier lets nobody multiply or shift a pointer that it knows the type
 * of; negated it is a number. */
static __always_inline u64 address_of(void *pointer) {
  u64 number = (u64)pointer;

  asm volatile("%0 = -%0" : "+r"(number));
  return -number;
}

/* pointer->field, by a plain load where the verifier allows it. Volatile: clang would widen a load, or make one of two,
 * and the verifier lets none reach beyond its field. */
#define READ(direct, pointer, field) \
  ({ \
    typeof((pointer)->field) value_ = 0; \
    if (direct) \
      value_ = *(volatile typeof(value_) *)&(pointer)->field; \
    else \
      bpf_probe_read_kernel(&value_, sizeof(value_), &(pointer)->field); \
    value_; \
  })

/* body(void *first_argument, bool direct) as NAME_btf (fentry, tracepoint) and, with KPROBES, NAME_kprobe. */
#ifdef KPROBES
#define ON_FIRST_ARGUMENT_KPROBE(name, body) \
  int name##_kprobe(struct pt_regs *ctx) { \
    body(opaque(PT_REGS_PARM1(ctx)), false); \
    return 0; \
  }
#else
#define ON_FIRST_ARGUMENT_KPROBE(name, body)
#endif
#define ON_FIRST_ARGUMENT(name, body) \
  int name##_btf(u64 *ctx) { \
    body(opaque(ctx[0]), true); \
    return 0; \
  } \
  ON_FIRST_ARGUMENT_KPROBE(name, body)

/* KFUNC_name and TYPE_name are the BTF ids of a kernel function that programs may call and of a struct, given to the
 * compiler where a source asks for them and the kernel has them. */

/* All ones where the number is negative, else 0. A branch would do, but the verifier follows both sides of each; clang
 * would make one of it, if it saw what this is. */
static __always_inline u64 if_negative(u64 number) {
  asm volatile("%0 s>>= 63" : "+r"(number));
  return number;
}

/* The time between two readings of the clock. The clock that programs read may go back by some nanoseconds when another
 * CPU looks at it (ktime_get_mono_fast_ns). */
static __always_inline u64 between(u64 then, u64 now) {
  return now > then ? now - then : 0;
}

/* clang moves no access to memory across it. */
#define BARRIER() asm volatile("" ::: "memory")

#ifdef bpf_target_arm64
/* Adds, and gives what was there before. An addition whose result nobody takes orders nothing here (STADD); this one
 * acquires and releases (LDADDAL; bpf_jit_comp.c, from 5.18 on). */
static __always_inline u64 fetch_add(u64 *word, u64 number) {
  u64 before = __sync_fetch_and_add(word, number);

  asm volatile("" : : "r"(before) : "memory");
  return before;
}

/* What was written before is seen before what is written after, by whoever reads both. The word is any one in a map:
 * what both acquires and releases is a whole barrier. */
#define ORDER(word) fetch_add(word, 0)
#define ADD(word, number) fetch_add(word, number)
#else /* x86 shows nobody writes in another order, and its additions are barriers */
#define ORDER(word) BARRIER()
#define ADD(word, number) __sync_fetch_and_add(word, number)
#endif

/* Where paths that have come together shall go on as one. The verifier takes a path for one that it knows only where it
 * has kept the state of an earlier one: at jumps, and not before two jumps and eight instructions after the last that
 * it kept (is_state_visited in kernel/bpf/verifier.c). Of the states that it has kept within a loop it forgets those
 * that fit nothing soon. So paths that reach a loop apart are each followed through all of its iterations. These jumps
 * lead nowhere; it removes them from what runs. */
#define MERGE() \
  ({ \
    u64 merged_; \
    asm volatile("%0 = 0\n" \
                 "if %0 != 0 goto +0\n" \
                 "if %0 != 0 goto +0\n" \
                 "%0 = 0\n%0 = 0\n%0 = 0\n%0 = 0\n%0 = 0\n" \
                 "if %0 != 0 goto +0\n" \
                 : "=r"(merged_)::"memory"); \
  })

/* Has the compiler describe a type that no map holds; the map itself is never made. */
#define LAYOUT(name, type) BPF_ARRAY(name##_layout, type, 1)
