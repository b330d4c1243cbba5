// SPDX-License-Identifier: GPL-2.0-only
int process_exit(u64 *ctx) {
  return ETH_P_ALL; // HERE
}
