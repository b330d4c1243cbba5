// SPDX-License-Identifier: GPL-2.0-only
/* Dropped packets, counted in the kernel by reason, place and flow.
 *
 * `kfree_skb` is where the kernel gives up a packet: it names the function that did, from 5.17 on a reason, and from
 * 6.11 on the socket that was to receive it. What was consumed goes elsewhere (`consume_skb`) and is not seen here.
 *
 * A drop costs one lookup of its flow. Once the table is full, new flows are counted by place and reason alone.
 *
 * Defined by the plan (probekit_drops/attach.py): FLOWS, PLACES, FILTERED where not every drop is wanted, and LAYER_*
 * for those asked for; with mode = "events" EVENT_PAGES and EVENT_RATE, and STACK with stacks; the enums of values.py:
 * POINT_*, KIND_*.
 */
#include "drops_netfilter.h"
#include "drops_packet.h"
#include "programs.h"

/* Every figure that is not a flow's: what was produced, and what was lost by which cause. */
struct counters {
  u64 drops;
  u64 not_packets; /* buffers of Unix and netlink sockets */
  u64 filtered;
  u64 flows;
  u64 unlisted;    /* drops of flows that found no room, counted by place */
  u64 uncounted;   /* nor did their place */
  u64 interrupted; /* on a CPU where three programs were under way */
  u64 layers_full; /* packets of a layer that found no room */
  u64 sent;        /* events */
  u64 held_back;   /* beyond the rate */
  u64 events_lost; /* ring buffer full */
};

#include "counters.bpf.h"

#define FAMILY_UNIX 1
#define FAMILY_NETLINK 16
#define NO_REASON ~0U /* this kernel gives none */
#define DEVICE_NAME 16
#define HOOK_PLACES 256 /* hooks of all namespaces whose functions are kept */

struct drop_count {
  u64 drops;   /* buffers */
  u64 packets; /* what they stand for */
  u64 bytes;
  u64 socket; /* inode number of the socket that it belonged to; 0: none */
  u32 uid;    /* its owner's */
  u32 flags;  /* TCP's, all that were seen */
  char device[DEVICE_NAME];
};

struct drop_place {
  u64 location;
  u32 reason;
  u32 old;
};

BPF_TABLE("hash", struct drop_flow, struct drop_count, flows, FLOWS);
BPF_TABLE("hash", struct drop_place, struct drop_count, places, PLACES);
BPF_TABLE("hash", struct hook_place, struct hook_entry, hooks, HOOK_PLACES);

/* What a program works on. It is no variable of the program because the verifier would know its contents, and follow
 * every combination of them. A softirq may interrupt a process on the same CPU, and an interrupt both. */
struct drop_scratch {
  u64 busy;
  struct drop_flow flow;
  struct hook_scratch hook;
};

BPF_PERCPU_ARRAY(scratches, struct drop_scratch, 3);
BPF_ARRAY(flow_number, u64, 1);

#ifdef EVENT_PAGES
#include "rate.bpf.h"

struct drop_event {
  u64 time; /* ns, CLOCK_MONOTONIC */
  u64 socket;
  struct drop_flow flow;
  u32 length;
  u32 flags;
  u32 uid;
  u32 reserved;
  char device[DEVICE_NAME];
#ifdef STACK
  u64 stack[STACK];
#endif
};

BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
LAYOUT(events, struct drop_event);
#endif

/* Who a packet belongs to and where it is: what the flow is made of, found once. */
struct drop_origin {
  struct net_device *device;
  struct sock *sk;
  u32 netns; /* 0: not known */
};

/* Sockets that are no more than a request or a memory of one have none of the fields behind sock_common. */
static __always_inline bool is_full(struct sock *sk) {
  u8 state = sk->__sk_common.skc_state;

  return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

/* TCP and UDP use the field of the device for something else while they queue a packet: what it leads to is a device
 * only if its namespace knows a loopback device that is in that namespace. */
static __always_inline u32 netns_of(struct net_device *device, bool direct) {
  struct net *net = device ? READ(direct, device, nd_net.net) : NULL;
  struct net_device *loopback = net ? READ(direct, net, loopback_dev) : NULL;

  return loopback && READ(direct, loopback, nd_net.net) == net ? READ(direct, net, ns.inum) : 0;
}

/* Inode and owner of the socket; from the receiver's file, not from whoever runs on this CPU. */
static __always_inline u64 owner_of(struct sock *sk, u32 *uid) {
  struct socket_alloc *socket = NULL;
  unsigned long inode = 0;

  if (!sk || !is_full(sk))
    return 0;
  socket = (void *)address_of(sk->sk_socket);
  if (!socket)
    return 0;
  bpf_probe_read_kernel(uid, sizeof(*uid), (void *)(address_of(sk) + __builtin_offsetof(struct sock, sk_uid)));
  bpf_probe_read_kernel(&inode, sizeof(inode),
                        (void *)((u64)socket + __builtin_offsetof(struct socket_alloc, vfs_inode) +
                                 __builtin_offsetof(struct inode, i_ino)));
  return inode;
}

/* The functions at a flow's hook, for user space to name. */
static __always_inline void keep_hook(struct drop_scratch *s) {
  struct drop_flow *flow = &s->flow;
  struct hook_place place = {.netns = flow->netns, .family = flow->family, .hook = flow->hook};

  if (flow->family == NF_NETDEV)
    place.ifindex = flow->ifindex;
  for (u32 i = 0; i < NF_ENTRIES; i++) {
    struct hook_entry entry = {};

    if (i < s->hook.count) /* function and argument, as in struct nf_hook_entry */
      bpf_probe_read_kernel(&entry, sizeof(struct nf_hook_entry), (void *)entry_at(s->hook.list, i));
    read_names(&entry);
    place.index = i;
    hooks.update(&place, &entry);
  }
}

/* The namespace of a packet that netfilter has: its device's, or its sender's where it has none yet. Numbers, not
 * pointers: the verifier would follow each kind of them through the whole search. */
static __always_inline u64 netfilter_net(u64 device, struct sk_buff *skb) {
  u64 net = 0, sk = address_of(skb->sk);

  if (device)
    bpf_probe_read_kernel(&net, sizeof(net), (void *)(device + __builtin_offsetof(struct net_device, nd_net)));
  else
    bpf_probe_read_kernel(&net, sizeof(net), (void *)(sk + __builtin_offsetof(struct sock, __sk_common.skc_net)));
  return net;
}

static __always_inline u64 family_of(struct sk_buff *skb) {
  u16 protocol = skb->protocol;

  if (protocol == bpf_htons(ETHERTYPE_IPV4))
    return NF_IPV4;
  if (protocol == bpf_htons(ETHERTYPE_IPV6))
    return NF_IPV6;
  return protocol == bpf_htons(ETHERTYPE_ARP) ? NF_ARP : 0;
}

/* Hook, family and chain of a packet that netfilter dropped, if they are found. */
static __always_inline void locate(struct drop_scratch *scratch, u64 *ctx, struct sk_buff *skb) {
  struct hook_scratch *s = &scratch->hook;
  struct drop_flow *flow = &scratch->flow;
  struct nf_hook_entry entry = {};
  u64 at, word;

  s->device = address_of(skb->dev);
  s->family = family_of(skb);
  s->net = netfilter_net(s->device, skb);
  BARRIER(); /* the verifier would know the family, and follow each */
  read_stack(s, ctx);
  MERGE();
  find_pointers(s);
  find_state_pointed_to(s);
  find_list(s);
  if (!s->count) {
    MERGE();
    find_state(s);
    find_list(s);
  }
  at = s->at;
  if (at >= STACK_WORDS || !s->count)
    return;
  word = s->words[at];
  flow->hook = word;
  flow->family = STATE_FAMILY(word);
  read_chains(s);
  find_chain(s);
  flow->chain = s->chain;
  find_entry(s, address_of(skb));
  if (s->entry >= NF_ENTRIES)
    return;
  bpf_probe_read_kernel(&entry, sizeof(entry), (void *)entry_at(s->list, s->entry));
  flow->ran = (u64)entry.hook;
  flow->ran_with = (u64)entry.priv;
}

static __always_inline struct drop_count *place_of(struct drop_flow *flow) {
  struct drop_place place = {.location = flow->location, .reason = flow->reason, .old = flow->old};
  struct drop_count none = {};
  struct drop_count *count = places.lookup(&place);

  COUNT(unlisted);
  if (!count) {
    places.insert(&place, &none);
    count = places.lookup(&place);
  }
  if (!count)
    COUNT(uncounted);
  return count;
}

/* A new flow's counters; with the table full, its place's. */
static __always_inline struct drop_count *add_flow(struct drop_scratch *s, struct drop_origin *from) {
  struct drop_flow *flow = &s->flow;
  struct drop_count fresh = {};
  u32 zero = 0;
  u64 *number = flow_number.lookup(&zero);

  if (!number || *number >= FLOWS)
    return place_of(flow);
  if (flow->hook != NO_HOOK)
    keep_hook(s);
  if (from->device)
    bpf_probe_read_kernel_str(fresh.device, DEVICE_NAME, from->device->name);
  fresh.socket = owner_of(from->sk, &fresh.uid);
  if (!flows.insert(flow, &fresh)) { /* another CPU may have been faster */
    __sync_fetch_and_add(number, 1);
    COUNT(flows);
  }
  struct drop_count *count = flows.lookup(flow);

  return count ? count : place_of(flow);
}

#ifdef EVENT_PAGES
static __always_inline void emit(u64 *ctx, struct drop_flow *flow, struct drop_origin *from, u32 length, u32 flags) {
  u64 now = bpf_ktime_get_ns();
  struct drop_event *e;

  if (!within_rate(now, EVENT_RATE)) {
    COUNT(held_back);
    return;
  }
  e = events.ringbuf_reserve(sizeof(*e));
  if (!e) {
    COUNT(events_lost);
    return;
  }
  COUNT(sent);
  __builtin_memset(e, 0, sizeof(*e));
  e->time = now;
  __builtin_memcpy(&e->flow, flow, sizeof(*flow));
  e->length = length;
  e->flags = flags;
  e->socket = owner_of(from->sk, &e->uid);
  if (from->device)
    bpf_probe_read_kernel_str(e->device, DEVICE_NAME, from->device->name);
#ifdef STACK
  bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
#endif
  events.ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}
#endif

#ifdef FILTERED
/* In a map, so that one program serves all values, and the verifier sees the same one each time. */
struct parameters {
  u32 netns;     /* the only one, an inode number; 0: all */
  u32 port;      /* 0: all */
  u32 protocols; /* bits of KIND_* */
};

BPF_ARRAY(parameters, struct parameters, 1);

static __always_inline bool wanted(struct drop_flow *flow) {
  bool tcp = flow->protocol == PROTOCOL_TCP, udp = flow->protocol == PROTOCOL_UDP;
  bool icmp = flow->protocol == PROTOCOL_ICMP || flow->protocol == PROTOCOL_ICMPV6;
  u32 kind = tcp ? KIND_TCP : udp ? KIND_UDP : icmp ? KIND_ICMP : KIND_OTHER, zero = 0;
  struct parameters *p = parameters.lookup(&zero);

  if (!p || (p->netns && flow->netns != p->netns))
    return false;
  if (p->port && (icmp || (flow->source_port != p->port && flow->destination_port != p->port)))
    return false;
  return p->protocols >> kind & 1;
}
#else
static __always_inline bool wanted(struct drop_flow *flow) {
  return true;
}
#endif

static __always_inline bool by_netfilter(u32 reason) {
#ifdef NETFILTER_REASON
  /* what waits for a program that does not read (NFQUEUE) gets no reason of its own */
  return reason == SKB_DROP_REASON_NETFILTER_DROP || reason == SKB_DROP_REASON_NOT_SPECIFIED;
#else
  return true; /* any drop may be */
#endif
}

/* All that is in such a segment arrived before (its end is before what was acknowledged last, tcp_sequence in
 * net/ipv4/tcp_input.c). */
static __always_inline bool has_arrived(u32 reason) {
#ifdef OLD_SEQUENCE_REASON
  return reason == SKB_DROP_REASON_TCP_OLD_SEQUENCE;
#else
  return false;
#endif
}

/* Reasons that old segments get; before there was one for old sequence numbers it was a general one. */
static __always_inline bool out_of_sequence(u32 reason) {
#ifdef INVALID_SEQUENCE_REASON
  if (reason == SKB_DROP_REASON_TCP_INVALID_SEQUENCE)
    return true;
#endif
  return has_arrived(reason);
}

/* Whether a segment that is out of sequence brings nothing that was not there: its data arrived before, or it asks for
 * an answer only. Nothing is in it then, and its number is one before the expected one (tcp_xmit_probe_skb in
 * net/ipv4/tcp_output.c). Before 6.11 nothing says what is expected. */
static __always_inline bool is_old(struct sk_buff *skb, struct sock *sk, u32 reason, u32 flags) {
  u32 numbers[2] = {}, expected = 0; /* the first, and behind the last: seq and end_seq of struct tcp_skb_cb */

  bpf_probe_read_kernel(numbers, sizeof(numbers), (void *)(address_of(skb) + __builtin_offsetof(struct sk_buff, cb)));
  if (flags & (TCP_FIN | TCP_SYN | TCP_RST))
    return false;
  if (numbers[0] != numbers[1])
    return has_arrived(reason);
  if (!sk || !is_full(sk))
    return true;
  bpf_probe_read_kernel(&expected, sizeof(expected),
                        (void *)(address_of(sk) + __builtin_offsetof(struct tcp_sock, rcv_nxt)));
  return numbers[0] + 1 == expected;
}

static __always_inline struct drop_scratch *take_scratch(void) {
#pragma unroll
  for (u32 level = 0; level < 3; level++) {
    u32 index = level;
    struct drop_scratch *s = scratches.lookup(&index);

    if (s && !s->busy) {
      s->busy = 1;
      return s;
    }
  }
  return NULL;
}

/* The namespace that the packet's route is in: TCP takes the device off what it looks at, and before 6.11 the
 * tracepoint does not say whose it is. The field has another use, too, while a packet is queued to be sent. */
static __always_inline u32 netns_of_route(struct sk_buff *skb) {
  u64 route = 0;

  bpf_probe_read_kernel(&route, sizeof(route),
                        (void *)(address_of(skb) + __builtin_offsetof(struct sk_buff, _skb_refdst)));
  route &= ~3ULL; /* SKB_DST_NOREF, SKB_DST_PTRMASK of linux/skbuff.h */
  return netns_of(route ? READ(false, (struct dst_entry *)route, dev) : NULL, false);
}

/* Whose packet it is, and where; false for what is no packet. */
static __always_inline bool trace_back(struct drop_origin *from, struct sk_buff *skb, struct sock *receiver) {
  u16 family = 0;

  from->device = skb->dev;
  from->netns = netns_of(from->device, true);
  from->sk = receiver ? receiver : skb->sk;
  if (from->sk)
    family = from->sk->__sk_common.skc_family;
  if (!from->netns) {
    from->device = NULL;
    from->netns = from->sk ? from->sk->__sk_common.skc_net.net->ns.inum : netns_of_route(skb);
  }
  return family != FAMILY_UNIX && family != FAMILY_NETLINK && (skb->protocol || from->device);
}

static __always_inline void count_drop(struct drop_scratch *s, struct drop_origin *from, struct sk_buff *skb,
                                       u32 flags) {
  struct drop_count *count = flows.lookup(&s->flow);

  COUNT(drops);
  if (!count)
    count = add_flow(s, from);
  if (!count)
    return;
  __sync_fetch_and_add(&count->drops, 1);
  __sync_fetch_and_add(&count->packets, packets_of(skb, true));
  __sync_fetch_and_add(&count->bytes, skb->len);
  count->flags |= flags;
}

static __always_inline void describe(struct drop_scratch *s, u64 *ctx, u32 reason, struct sock *receiver) {
  struct sk_buff *skb = opaque(ctx[0]);
  struct drop_flow *flow = &s->flow;
  struct drop_origin from = {};
  u32 flags;

  __builtin_memset(flow, 0, sizeof(*flow));
  flow->location = ctx[1];
  flow->reason = reason;
  flow->hook = NO_HOOK;
  if (by_netfilter(reason)) {
    locate(s, ctx, skb);
    MERGE();
  }
  flags = read_packet(flow, skb);
  if (!trace_back(&from, skb, receiver)) {
    COUNT(not_packets);
    return;
  }
  flow->netns = from.netns;
  flow->ifindex = from.device ? from.device->ifindex : skb->skb_iif;
  if (from.sk && flow->protocol == PROTOCOL_TCP)
    flow->state = from.sk->__sk_common.skc_state;
  if (flow->protocol == PROTOCOL_TCP && out_of_sequence(reason))
    flow->old = is_old(skb, from.sk, reason, flags);
  if (!wanted(flow)) {
    COUNT(filtered);
    return;
  }
  count_drop(s, &from, skb, flags);
#ifdef EVENT_PAGES
  if (!flow->old) /* nothing was lost */
    emit(ctx, flow, &from, skb->len, flags);
#endif
}

static __always_inline void drop(u64 *ctx, u32 reason, struct sock *receiver) {
  struct drop_scratch *s = take_scratch();

  if (!s) {
    COUNT(interrupted);
    return;
  }
  describe(s, ctx, reason, receiver);
  s->busy = 0;
}

/* The tracepoint's arguments grew over the years: a kernel refuses to load what asks for more than it has. */
int drop_with_receiver(u64 *ctx) {
  drop(ctx, ctx[2], opaque(ctx[3]));
  return 0;
}

int drop_with_reason(u64 *ctx) {
  drop(ctx, ctx[2], NULL);
  return 0;
}

int drop_alone(u64 *ctx) {
  drop(ctx, NO_REASON, NULL);
  return 0;
}

/* How many packets of each device come by each layer: what one has and the next has not was lost between them. */
#define FUNNEL 4096 /* devices times layers */
#define TCX_NEXT -1
#define NF_ACCEPT 1

struct layer_place {
  u32 netns; /* inode number; 0: the one that the program was attached in */
  u32 ifindex;
  u32 layer;
  u32 ip; /* whether it is IPv4 or IPv6 */
};

struct layer_count {
  u64 buffers;
  u64 packets;
  u64 bytes;
};

BPF_TABLE("hash", struct layer_place, struct layer_count, layers, FUNNEL);

static __always_inline void pass(u32 netns, u32 ifindex, u32 layer, u16 ethertype, u32 packets, u32 bytes) {
  bool ip = ethertype == bpf_htons(ETHERTYPE_IPV4) || ethertype == bpf_htons(ETHERTYPE_IPV6);
  struct layer_place place = {.netns = netns, .ifindex = ifindex, .layer = layer, .ip = ip};
  struct layer_count none = {};
  struct layer_count *count = layers.lookup(&place);

  if (!count) {
    layers.insert(&place, &none);
    count = layers.lookup(&place);
  }
  if (!count) {
    COUNT(layers_full);
    return;
  }
  __sync_fetch_and_add(&count->buffers, 1);
  __sync_fetch_and_add(&count->packets, packets);
  __sync_fetch_and_add(&count->bytes, bytes);
}

static __always_inline void pass_buffer(struct sk_buff *skb, struct net_device *device, u32 layer) {
  if (device)
    pass(device->nd_net.net->ns.inum, device->ifindex, layer, skb->protocol, packets_of(skb, true), skb->len);
}

/* packets_of for programs whose context is the buffer, of which it shows most numbers. */
static __always_inline u32 packets_in(struct __sk_buff *ctx) {
  u32 segments = ctx->gso_segs;

  if (segments)
    return segments;
  return ctx->gso_size ? packets_of((void *)address_of(ctx), false) : 1;
}

#ifdef LAYER_DEVICE
int received(u64 *ctx) {
  struct sk_buff *skb = opaque(ctx[0]);

  pass_buffer(skb, skb->dev, POINT_RECEIVED);
  return 0;
}

/* Before the driver has it: afterwards the buffer may be gone. */
int transmitted(u64 *ctx) {
  pass_buffer(opaque(ctx[0]), opaque(ctx[1]), POINT_TRANSMITTED);
  return 0;
}
#endif

#ifdef LAYER_XDP
/* Our own program, on a device that has none. */
int xdp_own(struct xdp_md *ctx) {
  u8 *data = (void *)(u64)ctx->data, *end = (void *)(u64)ctx->data_end;
  u16 ethertype = 0;

  if (data + 14 <= end)
    ethertype = *(u16 *)(data + 12);
  pass(0, ctx->ingress_ifindex, POINT_XDP_PASS, ethertype, 1, end - data);
  return XDP_PASS;
}

/* At the end of somebody else's program: buffer, verdict. The program may have moved the packet's beginning. */
int xdp_verdict(u64 *ctx) {
  struct xdp_buff *xdp = opaque(ctx[0]);
  u32 verdict = ctx[1];
  u16 ethertype = 0;
  u64 data = (u64)xdp->data;

  bpf_probe_read_kernel(&ethertype, sizeof(ethertype), (void *)(data + 12));
  if (verdict > XDP_REDIRECT)
    verdict = XDP_ABORTED;
  pass(0, xdp->rxq->dev->ifindex, POINT_XDP_ABORTED + verdict, ethertype, 1, (u64)xdp->data_end - data);
  return 0;
}
#endif

#ifdef LAYER_TC
static __always_inline int pass_tc(struct __sk_buff *skb, u32 layer) {
  pass(0, skb->ifindex, layer, skb->protocol, packets_in(skb), skb->len);
  return TCX_NEXT;
}

int tc_ingress(struct __sk_buff *skb) {
  return pass_tc(skb, POINT_TC_INGRESS);
}

int tc_egress(struct __sk_buff *skb) {
  return pass_tc(skb, POINT_TC_EGRESS);
}
#endif

#ifdef LAYER_NETFILTER
static __always_inline void pass_hook(struct sk_buff *skb, struct nf_hook_state *state, u32 leaving) {
  u32 hook = state->hook;
  bool sending = hook == NF_INET_LOCAL_OUT || hook == NF_INET_POST_ROUTING;

  if (hook < NF_HOOKS)
    pass_buffer(skb, sending ? state->out : state->in, POINT_PREROUTING_ENTER + 2 * hook + leaving);
}

/* The first and the last function at a hook. */
int hook_enter(u64 *ctx) {
  pass_hook(opaque(ctx[1]), opaque(ctx[0]), 0);
  return NF_ACCEPT;
}

int hook_leave(u64 *ctx) {
  pass_hook(opaque(ctx[1]), opaque(ctx[0]), 1);
  return NF_ACCEPT;
}

/* nf_hook_slow's skb, state, entries, index, result; a packet that was not accepted may be gone. */
int hook_run(u64 *ctx) {
  struct nf_hook_state *state = opaque(ctx[1]);
  struct sk_buff *skb = opaque(ctx[0]);

  if (state->pf != NF_IPV4 && state->pf != NF_IPV6)
    return 0;
  pass_hook(skb, state, 0);
  if ((int)ctx[4] == 1)
    pass_hook(skb, state, 1);
  return 0;
}
#endif

#ifdef LAYER_SOCKET
/* At the socket's filter: the context is the buffer itself, and the namespace is not among what it shows. */
int socket_ingress(struct __sk_buff *ctx) {
  struct sk_buff *skb = (void *)address_of(ctx);
  struct net_device *device = NULL;
  struct net *net = NULL;
  u32 netns = 0;

  bpf_probe_read_kernel(&device, sizeof(device), &skb->dev);
  bpf_probe_read_kernel(&net, sizeof(net), &device->nd_net.net);
  bpf_probe_read_kernel(&netns, sizeof(netns), &net->ns.inum);
  pass(netns, ctx->ifindex, POINT_SOCKET, ctx->protocol, packets_in(ctx), ctx->len);
  return 1;
}
#endif
