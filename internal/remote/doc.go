// Package remote reaches hosts by SSH.
//
// A [Dialer] makes a [Conn] with deadlines on every wait, a pinned host key and
// a keepalive of its own; a [Pool] shares one Conn per host between steps.
//
// A host with a bastion (see [Target].Via) is reached by a channel of a connection to that
// one, which up to 200 hosts share. How many handshakes are under way at once is bounded
// for the process, for each bastion and for each subnet; where connections are dropped
// before sshd says anything, the bound is halved, and rises again with each good one.
//
// What a Conn runs for good is a once-only run (see [Conn.Once]): Temporal runs
// activities at least once, connections break, workers die, so whether a command
// has run is decided by the host, in one directory per [Key]:
//
//	starter (SSH session)          runner (detached)                 follower (SSH session)
//	launch ─────────────────────>  claim: synced, then link(2)
//	wait for claim                 loses: ends without a trace
//	   │                           wins: runs the command ──> out ──> frames with offsets
//	   └─ digest differs: refuse   rc, synced; ends ────────────────> outcome
//
// Starter and follower are one session, whose shell waits for its own runner without
// polling. It ends with the connection: a line each second asks it to look what there
// is so far, and the end of these lines ends it.
//
// Claimed with rc: exited. Claimed with a living process: running. Claimed and
// neither: indeterminate, which is never success and never a reason to run it
// again. The scripts are POSIX sh, need no more than coreutils or busybox, and
// stand in script/.
//
// The scripts honour three variables of the host's own environment:
// COMMISSAIRE_STATE_DIR (otherwise /var/lib/commissaire for root, else
// ${XDG_STATE_HOME:-$HOME/.local/state}/commissaire), COMMISSAIRE_BOOT_ID_FILE
// (otherwise /proc/sys/kernel/random/boot_id) and COMMISSAIRE_OS_ROOT, a prefix of
// the paths that say what the system is (here: run/systemd/system).
//
// Nothing but constant text is ever part of a command line given to sshd: see
// [Quote] and login.
package remote
