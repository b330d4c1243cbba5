/* SPDX-License-Identifier: GPL-2.0-only */
/* Which hook and which chain dropped a packet.
 *
 * The tracepoint does not say it, but both are on the kernel's stack, above the arguments that a program is given: the
 * function that ran the hooks has a `struct nf_hook_state` there. It is known by its contents: this packet's namespace,
 * a device that is this packet's, and a function to go on with. What ran is one of the functions registered at that
 * hook, and the one whose own argument (an nftables chain, an iptables table) is still on the stack, too.
 *
 * From the modules' BTF, where nf_tables and x_tables are modules: NFT_CHAIN_TABLE, NFT_CHAIN_NAME, NFT_TABLE_NAME,
 * XT_TABLE_NAME.
 */
#pragma once

#include "programs.h"

#define NO_HOOK 0xff
#define NF_HOOKS 5
#define NF_FORWARD 2ULL
#define NF_IPV4 2
#define NF_IPV6 10
#define NF_ENTRIES 8    /* functions at one hook that are looked at */
#define STACK_WORDS 192 /* of the kernel's stack that are looked at */
#define CHAIN_WORDS 64  /* of those, for the chain */
#define STACK_CHUNK 16  /* words read at once: the stack may end within */
#define STATE_WORDS 8   /* more than struct nf_hook_state has; bcc cannot describe an array with sizeof in it */
#define STATE_FIELD(name) (__builtin_offsetof(struct nf_hook_state, name) / 8)
#define STATE_FAMILY(word) (u8)((word) >> 8 * __builtin_offsetof(struct nf_hook_state, pf))
#define NAME 32

struct hook_entry {
  u64 function;
  u64 chain;
  char table[NAME]; /* if the argument is an nftables chain: its table's name and its own */
  char name[NAME];
  char legacy[NAME]; /* if it is a table of iptables: its name */
};

struct hook_place {
  u32 netns;
  u8 family;
  u8 hook;
  u8 index; /* in the order in which they run */
  u8 reserved;
};

/* Too much for a program's stack. */
struct hook_scratch {
  u64 at; /* word at which the state was found; read back, so that the verifier does not follow each word of its own */
  u64 chain;
  u64 words[STACK_WORDS + STATE_WORDS];
  u64 chains[NF_ENTRIES];
};

#ifndef NFT_CHAIN_NAME
#ifdef NFT_BUILT_IN
#define NFT_CHAIN_TABLE __builtin_offsetof(struct nft_chain, table)
#define NFT_CHAIN_NAME __builtin_offsetof(struct nft_chain, name)
#define NFT_TABLE_NAME __builtin_offsetof(struct nft_table, name)
#endif
#endif
#ifndef XT_TABLE_NAME
#ifdef XT_BUILT_IN
#define XT_TABLE_NAME __builtin_offsetof(struct xt_table, name)
#endif
#endif

/* From where the arguments are, upwards. */
static __always_inline void read_stack(struct hook_scratch *s, u64 *ctx) {
  u64 base = address_of(ctx);

#pragma unroll
  for (u32 i = 0; i < STACK_WORDS / STACK_CHUNK; i++)
    if (bpf_probe_read_kernel(&s->words[i * STACK_CHUNK], 8 * STACK_CHUNK, (void *)(base + i * 8 * STACK_CHUNK)))
      __builtin_memset(&s->words[i * STACK_CHUNK], 0, 8 * STACK_CHUNK);
}

/* 1 where the number is negative, else 0. What could be branches is arithmetic here: the verifier follows both sides of
 * each branch, and there would be thousands. New ones do the same with masks of all ones, which these are therefore
 * not. */
static __always_inline u64 is_negative(u64 number) {
  asm volatile("%0 >>= 63" : "+r"(number));
  return number;
}

static __always_inline u64 is_equal(u64 one, u64 two) {
  u64 different = one ^ two;

  return is_negative(different | -different) ^ 1;
}

/* The state's word. A packet that is sent may have no device yet; it is behind the routing then, which tells its state
 * from what earlier ones have left on the stack. */
static __always_inline void find_state(struct hook_scratch *s, u64 net, u64 device) {
  u64 no_device = is_equal(device, 0);

  s->at = STACK_WORDS;
#pragma nounroll
  for (u32 i = 0; i < STACK_WORDS; i++) {
    u64 *w = &s->words[i];
    u64 in = w[STATE_FIELD(in)], out = w[STATE_FIELD(out)], next = w[STATE_FIELD(okfn)];
    u64 hook = w[0] & 0xff;
    u64 known = (is_equal(in, device) | is_equal(out, device)) & (no_device ^ 1);
    u64 leaving = is_equal(in, 0) & is_negative(out) & is_negative(NF_FORWARD - hook) & no_device;
    u64 found = is_equal(w[STATE_FIELD(net)], net) & (is_negative(next) | is_equal(next, 0)) &
                is_negative(hook - NF_HOOKS) & (known | leaving);

    if (found) {
      s->at = i;
      break;
    }
  }
}

/* The functions registered at a hook. */
static __always_inline u64 registered_at(u64 net, u8 family, u8 hook, u16 *count) {
  u64 at = 0, hooks = 0;

  if (family == NF_IPV4)
    hooks = net + __builtin_offsetof(struct net, nf.hooks_ipv4);
  else if (family == NF_IPV6)
    hooks = net + __builtin_offsetof(struct net, nf.hooks_ipv6);
  *count = 0;
  if (!hooks || hook >= NF_HOOKS)
    return 0;
  bpf_probe_read_kernel(&at, sizeof(at), (void *)(hooks + 8 * hook));
  if (at)
    bpf_probe_read_kernel(count, sizeof(*count), (void *)at);
  return at + __builtin_offsetof(struct nf_hook_entries, hooks);
}

static __always_inline void read_chains(struct hook_scratch *s, u64 net, u8 family, u8 hook) {
  struct nf_hook_entry entry = {};
  u16 count = 0;
  u64 at = registered_at(net, family, hook, &count);

#pragma unroll
  for (u32 i = 0; i < NF_ENTRIES; i++) {
    entry.priv = NULL;
    if (i < count)
      bpf_probe_read_kernel(&entry, sizeof(entry), (void *)(at + i * sizeof(entry)));
    s->chains[i] = (u64)entry.priv;
  }
}

/* Of the functions' arguments the one that is nearest on the stack: further away there may be older ones. */
static __always_inline void find_chain(struct hook_scratch *s) {
  s->chain = 0;
#pragma nounroll
  for (u32 i = 0; i < CHAIN_WORDS; i++) {
    u64 word = s->words[i], found = 0;

#pragma unroll
    for (u32 j = 0; j < NF_ENTRIES; j++)
      found |= is_equal(word, s->chains[j]);
    if (found & is_negative(word)) {
      s->chain = word;
      break;
    }
  }
}

/* Names are read with every offset that is known; user space takes those that fit the function. */
static __always_inline void read_names(struct hook_entry *entry) {
  entry->table[0] = entry->name[0] = entry->legacy[0] = 0;
  if (!entry->chain)
    return;
#ifdef NFT_CHAIN_NAME
  u64 table = 0, name = 0;

  bpf_probe_read_kernel(&name, sizeof(name), (void *)(entry->chain + NFT_CHAIN_NAME));
  bpf_probe_read_kernel(&table, sizeof(table), (void *)(entry->chain + NFT_CHAIN_TABLE));
  bpf_probe_read_kernel(&table, sizeof(table), (void *)(table + NFT_TABLE_NAME));
  bpf_probe_read_kernel_str(entry->name, NAME, (void *)name);
  bpf_probe_read_kernel_str(entry->table, NAME, (void *)table);
#endif
#ifdef XT_TABLE_NAME
  bpf_probe_read_kernel_str(entry->legacy, NAME, (void *)(entry->chain + XT_TABLE_NAME));
#endif
}
