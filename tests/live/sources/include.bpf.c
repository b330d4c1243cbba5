// SPDX-License-Identifier: GPL-2.0-only
#include <linux/tcp.h> // HERE

int process_exit(u64 *ctx) {
  return 0;
}
