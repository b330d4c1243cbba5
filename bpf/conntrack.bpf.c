// SPDX-License-Identifier: GPL-2.0-only
/* The life of TCP connections: a record for each socket, from its birth to its death.
 *
 * A record is made when the socket leaves TCP_CLOSE for SYN_SENT, or is born in SYN_RECV; it has ended when the socket
 * is in TCP_CLOSE again, and is handed over when the socket is destroyed: a reset that ends a connection is sent after
 * the state has changed. Programs run under the socket's lock, or before anybody else knows the socket, so that a
 * record has one writer at a time.
 *
 * Defined by the plan (probekit_conntrack/attach.py): MAX_CONNECTIONS, CLOSED_PAGES, CLOSED_WAKE, LATE_PAGES,
 * HANDSHAKES; the enums of values.py: SIDE_*, ORIGIN_*, END_*, CLOSER_*.
 */
#include "programs.h"
#include "socket.h"
#include "task.h"

#define STATES 12 /* up to TCP_CLOSING; what is above is not a full socket's */
#define JIFFIES_UNKNOWN 0xffffffff
#define NO_WINDOW_SCALE 15 /* net/ipv4/syncookies.c: what a SYN cookie's timestamp has in its lower bits */
#define COOKIE_SACK (1 << 4)
#define COOKIE_OPTIONS (COOKIE_SACK | NO_WINDOW_SCALE)
#define REFUSED 111 /* errno.h, which BTF has not */
#define TIMED_OUT 110
#define HOST_DOWN 112
#define HOST_UNREACHABLE 113
#define NET_DOWN 100
#define NET_UNREACHABLE 101
#define NO_ADDRESS 99
#define FILE_TYPE 00170000 /* stat.h */
#define FILE_SOCKET 0140000

/* The kernel's own figures. */
struct traffic {
  u64 acked;    /* bytes */
  u64 received; /* bytes */
  u64 min_rtt_us;
  u32 segments_out;
  u32 segments_in;
  u32 data_segments_out;
  u32 data_segments_in;
  u32 retransmits;
  u32 srtt_us;
  u32 cwnd;
  u32 idle; /* jiffies since data was last sent or received */
};

struct connection {
  u64 socket; /* the kernel's address of it */
  u64 id;
  u64 began;       /* ns, CLOCK_MONOTONIC: born, or first seen */
  u64 established; /* ns; 0: never, or not seen */
  u64 accepted;    /* ns; 0: not yet, or not seen */
  u64 ended;       /* ns; 0: not yet */
  u64 changed;     /* ns: when its state was entered */
  u64 handshake;   /* ns: SYN to SYN-ACK, or SYN-ACK to the ACK; 0: none, or not known */
  u64 dwell[STATES];
  struct owner owner;
  struct traffic traffic;
  u32 netns;
  u32 syn_retransmits;
  u32 peer_idle; /* jiffies that the connection had been idle when the peer closed it; JIFFIES_UNKNOWN: it did not */
  u32 error;     /* errno; 0: none */
  struct addresses addresses;
  u8 side;
  u8 origin;
  u8 state;
  u8 left; /* the state before */
  u8 closer;
  u8 end;
  u8 time_wait;
  u8 reset_sent;
  u8 reset_received;
  u8 unused[3];
};

/* A reset that was sent for a socket which had been destroyed already. */
struct late_reset {
  u64 socket;
  u64 time; /* ns, CLOCK_MONOTONIC */
};

/* The first SYN-ACK of a handshake that takes more than one. */
struct handshake {
  u8 remote[16];
  u32 netns;
  u16 remote_port;
  u16 local_port;
};

struct counters {
  u64 opened_active;
  u64 opened_passive;
  u64 found; /* were open already */
  u64 handed_over;
  u64 untracked;   /* born while the table was full */
  u64 unlisted;    /* looked for again while it was full: once each time */
  u64 closed_lost; /* ring buffer full */
  u64 late_lost;
};

#include "counters.bpf.h"

struct parameters {
  u64 netns; /* the only one to look at; 0: all */
  u64 ended; /* 1: the run is over, and nothing is added any more */
};

BPF_ARRAY(parameters, struct parameters, 1);
BPF_TABLE("hash", u64, struct connection, connections, MAX_CONNECTIONS);
BPF_ARRAY(blanks, struct connection, 1); /* never written: a record is too large for the stack */
BPF_TABLE("lru_hash", struct handshake, u64, handshakes, HANDSHAKES);
BPF_RINGBUF_OUTPUT(closed, CLOSED_PAGES);
LAYOUT(closed, struct connection);
BPF_RINGBUF_OUTPUT(late, LATE_PAGES);
LAYOUT(late, struct late_reset);

static __always_inline bool has_ended(void) {
  u32 zero = 0;
  struct parameters *p = parameters.lookup(&zero);

  return p && p->ended;
}

static __always_inline bool wanted(struct sock *sk) {
  u32 zero = 0;
  struct parameters *p = parameters.lookup(&zero);

  return p && (!p->netns || p->netns == netns_of_socket(sk));
}

static __always_inline struct connection *find(struct sock *sk) {
  u64 socket = address_of(sk);

  return connections.lookup(&socket);
}

static __always_inline void read_traffic(struct connection *c, struct tcp_sock *tp) {
  struct traffic *t = &c->traffic;
  u32 now = bpf_jiffies64(), since_sent = now - tp->lsndtime;
  u32 since_received = now - tp->inet_conn.icsk_ack.lrcvtime;

  t->acked = tp->bytes_acked;
  t->received = tp->bytes_received;
  t->min_rtt_us = tp->rtt_min.s[0].v;
  t->segments_out = tp->segs_out;
  t->segments_in = tp->segs_in;
  t->data_segments_out = tp->data_segs_out;
  t->data_segments_in = tp->data_segs_in;
  t->retransmits = tp->total_retrans;
  t->srtt_us = tp->srtt_us >> 3;
  t->cwnd = tp->snd_cwnd;
  t->idle = since_sent < since_received ? since_sent : since_received;
}

/* The record goes to user space. */
static __always_inline void hand_over(struct connection *c) {
  struct connection *copy = closed.ringbuf_reserve(sizeof(*copy));

  COUNT(handed_over);
  if (!copy) {
    COUNT(closed_lost);
    return;
  }
  __builtin_memcpy(copy, c, sizeof(*copy));
  closed.ringbuf_submit(copy, WAKE_EACH(CLOSED_WAKE, handed_over));
}

static __always_inline void forget(struct connection *c) {
  u64 socket = c->socket;

  hand_over(c);
  connections.delete(&socket);
}

/* A record for this socket; NULL where the table is full. */
static __always_inline struct connection *add(struct sock *sk, u8 side, u8 origin, u8 state) {
  u32 zero = 0;
  u64 socket = address_of(sk);
  struct connection *c = blanks.lookup(&zero);

  if (!c)
    return NULL;
  connections.insert(&socket, c);
  c = connections.lookup(&socket);
  if (!c)
    return NULL;
  c->began = c->changed = bpf_ktime_get_ns();
  c->netns = netns_of_socket(sk);
  c->side = side;
  c->origin = origin;
  c->state = state;
  c->peer_idle = JIFFIES_UNKNOWN;
  ORDER(&c->id); /* user space takes a record for whole that has its socket */
  c->socket = socket;
  return c;
}

/* A connection whose birth was not seen. */
static __always_inline struct connection *add_unseen(struct sock *sk, struct tcp_sock *tp, u8 state) {
  u8 side = is_accepted(sk, true) ? SIDE_SERVER : SIDE_CLIENT;
  struct connection *c;

  if (state == TCP_CLOSE || state == TCP_LISTEN || state >= STATES)
    return NULL;
  c = add(sk, side, ORIGIN_FOUND, state);
  if (!c) {
    COUNT(unlisted);
    return NULL;
  }
  COUNT(found);
  read_addresses(&c->addresses, sk);
  c->id = connection_id(sk, side == SIDE_CLIENT, true);
  read_traffic(c, tp);
  return c;
}

/* Whether the first round-trip time was made from the timestamp of a SYN cookie. The kernel keeps nothing of such a
 * handshake, and has other things in the timestamp's lower bits, which make it up to 64 ms older than the SYN-ACK. */
static __always_inline bool is_of_a_cookie(struct tcp_sock *tp) {
  u32 options = tp->rx_opt.wscale_ok ? tp->rx_opt.snd_wscale : NO_WINDOW_SCALE;
  u32 took = tp->srtt_us >> 3;

  if (tp->rx_opt.sack_ok)
    options |= COOKIE_SACK;
  /* a time from a timestamp is in whole milliseconds: others are so one in a thousand times, and look so in 32,000 */
  return tp->rx_opt.tstamp_ok && (tp->rx_opt.rcv_tsecr & COOKIE_OPTIONS) == options && took % 1000 == 0;
}

/* How long a server's handshake took; 0 where the kernel does not know. Its first round-trip time is that of SYN-ACK
 * and ACK, unless the SYN-ACK was sent again: then it is the time since the first one. An ACK that came with data has
 * the client's own waiting in it: the one without was lost, or dropped (TCP_DEFER_ACCEPT). Where data went either way
 * before it (TCP Fast Open) the time may be that data's. */
static __always_inline u64 server_handshake(struct connection *c, struct tcp_sock *tp, u64 now) {
  struct handshake key = {};
  u64 *first;

  if (tp->data_segs_in || tp->data_segs_out)
    return 0;
  if (!tp->total_retrans) /* what was sent again was kept, and is no cookie, whatever its timestamp looks like */
    return is_of_a_cookie(tp) ? 0 : (u64)(tp->srtt_us >> 3) * 1000;
  __builtin_memcpy(key.remote, c->addresses.remote, sizeof(key.remote));
  key.netns = c->netns;
  key.remote_port = c->addresses.remote_port;
  key.local_port = c->addresses.local_port;
  first = handshakes.lookup(&key);
  return first && *first ? between(*first, now) : 0;
}

static __always_inline void established(struct connection *c, struct sock *sk, struct tcp_sock *tp, u8 old, u64 now) {
  __builtin_memset(&c->addresses, 0, sizeof(c->addresses));
  read_addresses(&c->addresses, sk);
  c->id = connection_id(sk, c->side == SIDE_CLIENT, true);
  c->established = now;
  c->syn_retransmits = tp->total_retrans;
  if (c->origin != ORIGIN_BIRTH)
    return;
  if (c->side == SIDE_SERVER)
    c->handshake = server_handshake(c, tp, now);
  else if (old == TCP_SYN_SENT) /* where both ends opened it, nobody's SYN was answered by a SYN-ACK */
    c->handshake = between(c->began, now);
}

static __always_inline void closes(struct connection *c, u8 closer) {
  if (!c->closer)
    c->closer = closer;
}

/* Before the record is looked at by anybody: flags may have come after the state. */
static __always_inline u8 end_of(struct connection *c) {
  bool connecting = c->left == TCP_SYN_SENT || (c->left == TCP_SYN_RECV && !c->established);

  if (c->error == TIMED_OUT)
    return END_TIMEOUT;
  if (connecting && c->error == REFUSED)
    return END_REFUSED;
  if (c->error == HOST_UNREACHABLE || c->error == NET_UNREACHABLE || c->error == HOST_DOWN || c->error == NET_DOWN)
    return connecting ? END_UNREACHABLE : END_TIMEOUT;
  if (c->reset_sent)
    return END_RST_SENT;
  if (c->reset_received)
    return END_RST_RECEIVED;
  if (connecting)
    return c->traffic.segments_out ? END_ABORTED : END_FAILED;
  return END_FIN;
}

static __always_inline void conclude(struct connection *c) {
  c->end = end_of(c);
  if (c->end == END_RST_SENT)
    closes(c, CLOSER_LOCAL);
  if (c->end == END_RST_RECEIVED || c->end == END_REFUSED)
    closes(c, CLOSER_REMOTE);
  if (c->end != END_FIN)
    c->time_wait = 0;
}

static __always_inline void ended(struct connection *c, struct sock *sk, struct tcp_sock *tp, u8 old, u64 now) {
  c->ended = now;
  c->left = old;
  c->error = sk->sk_err;
  c->time_wait = old == TCP_FIN_WAIT2 || old == TCP_CLOSING;
  if (!c->established && c->origin == ORIGIN_BIRTH) {
    __builtin_memset(&c->addresses, 0, sizeof(c->addresses));
    read_addresses(&c->addresses, sk);
    /* the port has been given back already, but for this field */
    c->addresses.local_port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
    c->id = connection_id(sk, c->side == SIDE_CLIENT, true);
    c->syn_retransmits = tp->total_retrans;
  }
  read_traffic(c, tp);
  conclude(c);
  if (c->end == END_FAILED && !c->error && !c->addresses.local_port)
    c->error = NO_ADDRESS;
}

static __always_inline void passes(struct connection *c, struct sock *sk, struct tcp_sock *tp, u8 old, u8 new) {
  u64 now = bpf_ktime_get_ns();

  if (old < STATES)
    c->dwell[old] += between(c->changed, now);
  c->changed = now;
  c->state = new;
  switch (new) {
  case TCP_ESTABLISHED:
    established(c, sk, tp, old, now);
    break;
  case TCP_FIN_WAIT1:
  case TCP_LAST_ACK:
    closes(c, CLOSER_LOCAL);
    if (!c->owner.pid) /* only a process closes */
      own(&c->owner);
    break;
  case TCP_CLOSE_WAIT:
    closes(c, CLOSER_REMOTE);
    read_traffic(c, tp);
    c->peer_idle = c->traffic.idle;
    break;
  case TCP_CLOSING:
    c->closer = CLOSER_BOTH;
    break;
  case TCP_CLOSE:
    ended(c, sk, tp, old, now);
    break;
  }
}

/* sk, old state, new state. */
int state_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]);
  u8 old = ctx[1], new = ctx[2];
  struct tcp_sock *tp = tcp_sock_of(sk, true);
  struct connection *c;

  if (!tp || new == TCP_LISTEN || (old == TCP_LISTEN && new != TCP_SYN_RECV) || !wanted(sk))
    return 0;
  c = find(sk);
  if (new == TCP_SYN_SENT || (new == TCP_SYN_RECV &&old == TCP_LISTEN)) {
    if (c) /* it is used for another connection, or its death was missed and its address is used again */
      forget(c);
    c = add(sk, new == TCP_SYN_SENT ? SIDE_CLIENT : SIDE_SERVER, ORIGIN_BIRTH, new);
    if (!c) {
      COUNT(untracked);
      return 0;
    }
    if (new == TCP_SYN_SENT) {
      COUNT(opened_active);
      read_addresses(&c->addresses, sk);
      own(&c->owner);
    } else {
      COUNT(opened_passive);
    }
    return 0;
  }
  if (!c)
    c = add_unseen(sk, tp, old);
  if (c)
    passes(c, sk, tp, old, new);
  return 0;
}

/* sk: the socket and everything about it goes. */
int destroy_btf(u64 *ctx) {
  struct connection *c = find(opaque(ctx[0]));

  if (!c)
    return 0;
  if (c->ended)
    conclude(c);
  forget(c);
  return 0;
}

/* sk: a reset was received, or data that nobody can read any more and that is going to be answered by one. */
int reset_received_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]);
  struct connection *c = find(sk);
  struct tcp_sock *tp = tcp_sock_of(sk, true);

  if (!c || !tp)
    return 0;
  c->reset_received = 1;
  read_traffic(c, tp);
  if (!c->closer && c->established)
    c->peer_idle = c->traffic.idle;
  return 0;
}

/* sk, skb, after the reset was sent; sk is NULL where nobody listens. */
int reset_sent_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]);
  struct late_reset *r;
  struct connection *c;
  u8 state;

  if (!sk)
    return 0;
  state = sk->__sk_common.skc_state;
  c = find(sk);
  if (c) {
    c->reset_sent = 1;
    if (c->ended)
      conclude(c);
    return 0;
  }
  if (state != TCP_CLOSE || !tcp_sock_of(sk, true) || !wanted(sk))
    return 0;
  r = late.ringbuf_reserve(sizeof(*r));
  if (!r) {
    COUNT(late_lost);
    return 0;
  }
  r->socket = address_of(sk);
  r->time = bpf_ktime_get_ns();
  late.ringbuf_submit(r, 0);
  return 0;
}

/* sk: the listener's; request: the handshake whose SYN-ACK was just sent again. If it has been acknowledged, that ACK
 * was dropped (TCP_DEFER_ACCEPT), and the time until the next one is no handshake's. */
int synack_again_btf(u64 *ctx) {
  struct sock *sk = opaque(ctx[0]), *request = opaque(ctx[1]);
  struct tcp_request_sock *r = (void *)request;
  struct inet_request_sock copy = {}; /* a field of bits has no address to be read from */
  struct addresses a = {};
  struct handshake key = {};
  u64 first_us = 0, first;

  if (!wanted(sk))
    return 0;
  bpf_probe_read_kernel(&first_us, sizeof(first_us), &r->snt_synack);
  bpf_probe_read_kernel(&copy, sizeof(copy), request);
  if (!first_us)
    return 0;
  first = copy.acked ? 0 : first_us * 1000;
  read_addresses(&a, request);
  __builtin_memcpy(key.remote, a.remote, sizeof(key.remote));
  key.netns = netns_of_socket(sk);
  key.remote_port = a.remote_port;
  key.local_port = a.local_port;
  handshakes.update(&key, &first);
  return 0;
}

static __always_inline void accepted(struct sock *sk) {
  struct connection *c = find(sk);

  if (!c || c->accepted || c->side != SIDE_SERVER)
    return;
  c->accepted = bpf_ktime_get_ns();
  own(&c->owner);
}

/* In the acceptor's context, under the new socket's lock. */
static __always_inline void graft(struct sock *sk, bool direct) {
  accepted(sk);
}
ON_FIRST_ARGUMENT(graft, graft)

/* Where the registers of a task have the number of its system call, and the numbers: asm/unistd.h. */
#if defined(bpf_target_x86)
#define SYSCALL_NUMBER(regs) ((long)(regs)->orig_ax)
#define ACCEPT 43
#define ACCEPT4 288
#define TS_COMPAT 2 /* asm/thread_info.h: in a system call of 32 bits */
#define IS_COMPAT(task) \
  ({ \
    u32 status_ = 0; \
    bpf_probe_read_kernel(&status_, sizeof(status_), &(task)->thread_info.status); \
    (status_ & TS_COMPAT) != 0; \
  })
#elif defined(bpf_target_arm64)
#define SYSCALL_NUMBER(regs) ((long)(regs)->syscallno)
#define ACCEPT 202
#define ACCEPT4 242
#define IS_COMPAT(task) false
#else
#define SYSCALL_NUMBER(regs) (-1L)
#define ACCEPT 0
#define ACCEPT4 0
#define IS_COMPAT(task) false
#endif

/* regs, result: the end of every system call, where nothing better says that a connection was accepted. */
int system_call_btf(u64 *ctx) {
  struct pt_regs *regs = opaque(ctx[0]);
  long number = SYSCALL_NUMBER(regs), descriptor = ctx[1];
  struct task_struct *task;
  struct files_struct *files = NULL;
  struct fdtable *table = NULL;
  struct file **slots = NULL, *file = NULL;
  struct socket *socket = NULL;
  struct sock *sk = NULL;
  u32 room = 0;

  if ((number != ACCEPT && number != ACCEPT4) || descriptor < 0)
    return 0;
  task = (void *)bpf_get_current_task();
  if (IS_COMPAT(task)) /* other numbers: 43 is times */
    return 0;
  bpf_probe_read_kernel(&files, sizeof(files), &task->files);
  bpf_probe_read_kernel(&table, sizeof(table), &files->fdt);
  bpf_probe_read_kernel(&room, sizeof(room), &table->max_fds);
  if (descriptor >= room)
    return 0;
  bpf_probe_read_kernel(&slots, sizeof(slots), &table->fd);
  bpf_probe_read_kernel(&file, sizeof(file), &slots[descriptor]);
  bpf_probe_read_kernel(&socket, sizeof(socket), &file->private_data);
  bpf_probe_read_kernel(&sk, sizeof(sk), &socket->sk);
  if (sk)
    accepted(sk);
  return 0;
}

/* meta, sk: every TCP socket of a network namespace, at the beginning and whenever somebody looks. */
int each_socket(u64 *ctx) {
  struct sock_common *common = opaque(ctx[1]);
  struct tcp_sock *tp;
  struct sock *sk;
  struct connection *c;
  u8 state;

  if (!common)
    return 0;
  tp = bpf_skc_to_tcp_sock(common);
  if (!tp)
    return 0;
  sk = (struct sock *)tp;
  state = sk->__sk_common.skc_state;
  if (state == TCP_LISTEN || !wanted(sk))
    return 0;
  c = find(sk);
  if (!c) {
    if (!has_ended())
      add_unseen(sk, tp, state);
    return 0;
  }
  if (c->ended)
    return 0;
  read_traffic(c, tp);
  if (!c->established && c->origin == ORIGIN_BIRTH)
    c->syn_retransmits = c->traffic.retransmits;
  return 0;
}

/* meta, task, descriptor, file: who owns the sockets that were open already. */
int each_file(u64 *ctx) {
  struct task_struct *task = opaque(ctx[1]);
  struct file *file = opaque(ctx[3]);
  struct inode *inode = NULL;
  struct socket *socket = NULL;
  struct sock *sk = NULL;
  struct connection *c;
  u16 mode = 0;

  if (!task || !file)
    return 0;
  bpf_probe_read_kernel(&inode, sizeof(inode), &file->f_inode);
  bpf_probe_read_kernel(&mode, sizeof(mode), &inode->i_mode);
  if ((mode & FILE_TYPE) != FILE_SOCKET)
    return 0;
  bpf_probe_read_kernel(&socket, sizeof(socket), &file->private_data);
  bpf_probe_read_kernel(&sk, sizeof(sk), &socket->sk);
  if (!sk)
    return 0;
  c = find(sk);
  if (!c || c->owner.pid)
    return 0;
  own_for(&c->owner, task);
  return 0;
}
