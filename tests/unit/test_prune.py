from __future__ import annotations

from probekit.compile.prune import prune, words_of, words_of_library

HEADER = """\
#ifndef GUARD
#define GUARD

struct far;

typedef unsigned int u32;

typedef u32 counter_t;

typedef void release_fn(struct far *);

typedef int (*visit_fn)(u32);

typedef struct {
	u32 inner;
} boxed_t;

enum colour {
	RED = 0,
	GREEN = 1,
};

struct leaf {
	counter_t count;
};

struct far {
	struct leaf tip;
};

struct node {
	struct leaf here;
	struct far *away;
	struct far *other;
	enum colour paint;
	release_fn *release;
	boxed_t box[4];
};

struct unused {
	visit_fn visit;
};

#endif
"""


def kept(*wanted: str) -> str:
    return prune(HEADER, set(wanted))


def test_members_by_value_and_their_typedefs_come_along() -> None:
    text = kept("node")
    for needed in ("struct leaf {", "typedef u32 counter_t", "typedef unsigned int u32", "enum colour {", "} boxed_t;"):
        assert needed in text
    assert "typedef void release_fn(struct far *);" in text


def test_what_is_only_pointed_to_stays_incomplete() -> None:
    text = kept("node")
    assert "struct far;" in text
    assert "struct far {" not in text


def test_what_a_named_member_points_to_is_whole() -> None:
    assert "struct far {" in kept("node", "away")
    assert "struct far {" not in kept("far_away", "leaf", "away")


def test_an_enumerator_brings_its_enum() -> None:
    assert "enum colour {" in kept("GREEN")


def test_what_nobody_names_is_left_out() -> None:
    assert "unused" not in kept("node", "away")
    assert "visit_fn" not in kept("node")


def test_the_order_and_the_guards_stay() -> None:
    text = kept("node", "unused")
    assert text.index("u32;") < text.index("counter_t;") < text.index("struct leaf {") < text.index("struct node {")
    assert text.startswith("#ifndef GUARD")
    assert text.rstrip().endswith("#endif")


def test_words_of_sources_and_of_the_library() -> None:
    assert words_of([b"sk->sk_prot /* x1 */", b"u32 y;"]) == {"sk", "sk_prot", "x1", "u32", "y"}
    found = words_of_library(b"\x00struct pt_regs *ctx; uintptr_t map; __u32 a; BPF_FUNC_x\x00 structural")
    assert {"pt_regs", "uintptr_t", "__u32"} <= found
