/* SPDX-License-Identifier: GPL-2.0-only */
/* Which hook and which chain dropped a packet.
 *
 * The tracepoint does not say it, but both are on the kernel's stack, above the arguments that a program is given. The
 * function that sends a packet through a hook (ip_rcv, arp_xmit, ...) has a `struct nf_hook_state` there and passes its
 * address on, which functions below keep. What it points to is known by its contents: this packet's namespace and
 * protocol, a device that is this packet's, and a function to go on with. What earlier packets left on the stack looks
 * the same, but is seldom pointed to.
 *
 * nf_hook_slow (net/netfilter/core.c) calls a hook's functions in their order. It keeps its arguments and the number of
 * the one that it calls in registers, which functions below save: the number is beside the address of the list. A
 * rule's chain or table is the argument of the function that ran.
 *
 * From the modules' BTF, where nf_tables and x_tables are modules: NFT_CHAIN_TABLE, NFT_CHAIN_NAME, NFT_TABLE_NAME,
 * XT_TABLE_NAME. HOOKS_ARP, HOOKS_BRIDGE, HOOKS_INGRESS and HOOKS_EGRESS where this kernel has these.
 */
#pragma once

#include "programs.h"

#define NO_HOOK 0xff
#define NF_HOOKS 5
#define NF_LOCAL_IN 1
#define NF_FORWARD 2ULL
#define NF_IPV4 2
#define NF_ARP 3
#define NF_NETDEV 5
#define NF_BRIDGE 7
#define NF_IPV6 10
#define NF_INGRESS 0 /* of NF_NETDEV */
#define NF_ENTRIES 8 /* functions at one hook that are looked at */
#define NO_ENTRY NF_ENTRIES
#define STACK_WORDS 192 /* of the kernel's stack that are looked at */
#define STACK_MASK 255  /* of a number that the verifier shall believe to be a word's */
#define CHAIN_WORDS 64  /* of those, for the chain */
#define POINTERS 64     /* of words that point into the stack */
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
  u32 ifindex; /* of NF_NETDEV, whose hooks are a device's */
  u8 family;
  u8 hook;
  u8 index; /* in the order in which they run */
  u8 reserved;
};

/* Too much for a program's stack. Numbers are read back from here, so that the verifier does not follow each word of
 * its own. */
struct hook_scratch {
  u64 net;     /* of the packet */
  u64 device;  /* the packet's; 0: none yet */
  u64 family;  /* of the packet's protocol; 0: neither IP nor ARP */
  u64 base;    /* address of the first word */
  u64 at;      /* word at which the state was found */
  u64 pointer; /* word with its address */
  u64 list;    /* address of the hook's functions: struct nf_hook_entries */
  u16 count;   /* how many they are */
  u64 entry;   /* which of them ran */
  u64 chain;
  u64 index;                   /* of the word that a loop looks at */
  u64 pointing;                /* how many words point into the stack */
  u8 pointers[STACK_MASK + 1]; /* which */
  u64 words[STACK_MASK + 1 + STATE_WORDS];
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
  s->base = address_of(ctx);

#pragma unroll
  for (u32 i = 0; i < STACK_WORDS / STACK_CHUNK; i++) /* what cannot be read becomes 0 */
    bpf_probe_read_kernel(&s->words[i * STACK_CHUNK], 8 * STACK_CHUNK, (void *)(s->base + i * 8 * STACK_CHUNK));
}

/* The verifier walks every iteration of a loop, and goes on from each way out of it that leaves something else behind:
 * in a register, or where clang put one on the stack, which is hardly ever free of what was there before. Two loops in
 * a row would be walked hundreds of times. So nothing is left: a loop's counter is all that it knows to differ, and
 * there is one way out, with the same counter. An index that was read back may be any. Nor is there any branch in a
 * loop but that which leaves it: what comes back to its beginning is walked again to the end, where no state of it is
 * kept.
 */
#define LOOP(i, from, to) _Pragma("nounroll") for (u64 i = from; i < to; i++)
#define LEAVE(i, to) asm volatile("%0 = %1" : "=r"(i) : "i"((to)-1))

static __always_inline u64 any_word(struct hook_scratch *s, u64 i) {
  u64 index;

  *(volatile u64 *)&s->index = i;
  index = *(volatile u64 *)&s->index;
  asm volatile("%0 &= 255" : "+r"(index)); /* STACK_MASK */
  return index;
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

/* Whether one number is less than the other, neither of which takes 63 bits when it is. */
static __always_inline u64 is_less(u64 one, u64 two) {
  return is_negative(one - two) & (is_negative(one) ^ 1);
}

/* Whether these words are the packet's state. A packet that is sent may have no device yet; it is behind the routing
 * then, which tells its state from what earlier ones have left on the stack. One that a bridge keeps for itself is the
 * bridge's already, while its state has the port. */
static __always_inline u64 is_state(u64 *w, u64 packet_net, u64 device, u64 packet_family) {
  u64 no_device = is_equal(device, 0), hook = w[0] & 0xff, family = STATE_FAMILY(w[0]);
  u64 in = w[STATE_FIELD(in)], out = w[STATE_FIELD(out)], next = w[STATE_FIELD(okfn)];
  u64 bridge = is_equal(family, NF_BRIDGE), kept = bridge & is_equal(hook, NF_LOCAL_IN) & is_negative(in);
  u64 known = (is_equal(in, device) | is_equal(out, device) | kept) & (no_device ^ 1);
  u64 leaving = is_equal(in, 0) & is_negative(out) & is_negative(NF_FORWARD - hook) & no_device;
  u64 fits = is_equal(family, packet_family) | is_equal(family, NF_NETDEV) | bridge;

  return is_equal(w[STATE_FIELD(net)], packet_net) & (is_negative(next) | is_equal(next, 0)) & is_less(hook, NF_HOOKS) &
         (known | leaving) & fits;
}

/* The words that point further up the stack: few do. */
static __always_inline void find_pointers(struct hook_scratch *s) {
  u64 base = s->base, next = 0;

  LOOP(i, 0, STACK_WORDS) {
    u64 distance = s->words[i] - base, place = next;

    asm volatile("%0 &= 255" : "+r"(place)); /* STACK_MASK */
    s->pointers[place] = i;
    next += is_less(8 * i, distance) & is_less(distance, 8 * STACK_WORDS);
  }
  s->pointing = next;
  MERGE();
}

/* A state that is pointed to from further down the stack. */
static __always_inline void find_state_pointed_to(struct hook_scratch *s) {
  u64 base = s->base, net = s->net, device = s->device, family = s->family, pointing = s->pointing;

  s->at = s->pointer = STACK_WORDS;
  LOOP(i, 0, POINTERS) {
    u64 pointer = s->pointers[any_word(s, i)], distance, at, found;

    asm volatile("%0 &= 255" : "+r"(pointer)); /* STACK_MASK */
    distance = s->words[pointer] - base;
    at = distance >> 3;
    asm volatile("%0 &= 255" : "+r"(at)); /* STACK_MASK */
    found = is_less(s->index, pointing) & is_equal(distance & 7, 0) & is_state(&s->words[at], net, device, family);
    if (found | is_less(pointing, s->index + 1)) {
      s->at = found ? at : STACK_WORDS;
      s->pointer = found ? pointer : STACK_WORDS;
      LEAVE(i, POINTERS);
    }
  }
  MERGE();
}

/* The nearest state, where nobody has kept its address. */
static __always_inline void find_state(struct hook_scratch *s) {
  u64 net = s->net, device = s->device, family = s->family;

  LOOP(i, 0, STACK_WORDS) {
    u64 index = any_word(s, i), found = is_state(&s->words[index], net, device, family);

    if (found) {
      s->at = index;
      LEAVE(i, STACK_WORDS);
    }
  }
  MERGE();
}

/* Where the address of a hook's functions is; 0 where this kernel has no such hook. The device is the state's. */
static __always_inline u64 list_of(u64 net, u64 device, u8 family, u8 hook) {
  u64 where = 0;

  if (hook >= NF_HOOKS)
    return 0;
  if (family == NF_IPV4)
    where = net + __builtin_offsetof(struct net, nf.hooks_ipv4) + 8 * hook;
  else if (family == NF_IPV6)
    where = net + __builtin_offsetof(struct net, nf.hooks_ipv6) + 8 * hook;
#ifdef HOOKS_ARP
  else if (family == NF_ARP)
    where = net + __builtin_offsetof(struct net, nf.hooks_arp) + 8 * hook;
#endif
#ifdef HOOKS_BRIDGE
  else if (family == NF_BRIDGE)
    where = net + __builtin_offsetof(struct net, nf.hooks_bridge) + 8 * hook;
#endif
#ifdef HOOKS_INGRESS
  else if (family == NF_NETDEV && hook == NF_INGRESS)
    where = device + __builtin_offsetof(struct net_device, nf_hooks_ingress);
#endif
#ifdef HOOKS_EGRESS
  else if (family == NF_NETDEV)
    where = device + __builtin_offsetof(struct net_device, nf_hooks_egress);
#endif
  return where;
}

static __always_inline u64 entry_at(u64 list, u32 index) {
  return list + __builtin_offsetof(struct nf_hook_entries, hooks) + index * sizeof(struct nf_hook_entry);
}

/* The functions at the hook of the state that was found; none where a state was found that is none. */
static __always_inline void find_list(struct hook_scratch *s) {
  u64 at = s->at, device, where;

  s->list = s->count = 0;
  if (at >= STACK_WORDS)
    return;
  device = s->words[at + STATE_FIELD(in)];
  if (!device)
    device = s->words[at + STATE_FIELD(out)];
  where = list_of(s->net, device, STATE_FAMILY(s->words[at]), s->words[at]);
  if (where)
    bpf_probe_read_kernel(&s->list, sizeof(s->list), (void *)where);
  if (s->list)
    bpf_probe_read_kernel(&s->count, sizeof(s->count), (void *)s->list);
  BARRIER(); /* read anew what the verifier would otherwise follow for each family */
}

/* Which of the hook's functions ran: the number beside the list's address; or beside the state's, which is behind the
 * packet's then. Compilers give registers in the order of their first use: from 6.1 on packet, state, number, list; on
 * 5.10 number, list, verdict, packet, state. */
static __always_inline void find_entry(struct hook_scratch *s, u64 packet) {
  u64 list = s->list, count = s->count, pointer = s->pointer, before = pointer - 1, after = pointer + 1, beside;

  asm volatile("%0 &= 255" : "+r"(before)); /* STACK_MASK; what is behind the stack's words is 0 */
  asm volatile("%0 &= 255" : "+r"(after));
  beside = s->words[after];
  s->entry = NO_ENTRY;
  if (is_less(pointer, STACK_WORDS) & is_equal(s->words[before], packet) & is_less(beside, count))
    s->entry = beside;
  LOOP(i, 0, STACK_WORDS - 1) {
    u64 *word = &s->words[any_word(s, i)], number = word[0];
    u64 found = is_equal(word[1], list) & is_less(number, count);

    if (found) {
      s->entry = number;
      LEAVE(i, STACK_WORDS - 1);
    }
  }
  MERGE();
}

/* What each of the hook's functions was registered with. */
static __always_inline void read_chains(struct hook_scratch *s) {
#pragma unroll
  for (u32 i = 0; i < NF_ENTRIES; i++) {
    s->chains[i] = 0;
    if (i < s->count)
      bpf_probe_read_kernel(&s->chains[i], sizeof(u64),
                            (void *)(entry_at(s->list, i) + __builtin_offsetof(struct nf_hook_entry, priv)));
  }
  MERGE();
}

/* Of the functions' arguments the one that is nearest on the stack: further away there may be older ones. */
static __always_inline void find_chain(struct hook_scratch *s) {
  s->chain = 0;
  LOOP(i, 0, CHAIN_WORDS) {
    u64 word = s->words[any_word(s, i)], found = 0;

#pragma unroll
    for (u32 j = 0; j < NF_ENTRIES; j++)
      found |= is_equal(word, s->chains[j]);
    if (found & is_negative(word)) {
      s->chain = word;
      LEAVE(i, CHAIN_WORDS);
    }
  }
  MERGE();
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
