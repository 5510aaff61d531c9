# The detached process, a copy of the starter or a shell of its own behind what that
# says about the command. It is the only one to claim.

c_run() { # the command
  # Not $$, which a copy has from the starter.
  c_boot_id && read -r c_me c_line </proc/self/stat || exit 1
  c_mine=$c_dir/claim.${c_job##*.}
  if ! c_claim "$c_want" "$c_time" 2>/dev/null && ! c_why=$(c_claim "$c_want" "$c_time" 2>&1); then
    # Lost to another runner: not a trace. Otherwise the starter wants to know.
    [ -e "$c_dir/claim" ] || printf '%s\n' "$c_why" >"$c_job.failed"
    [ ! -e "$c_job" ] || rm -f "$c_job"
    exit 0
  fi
  for c_one in "$c_dir"/job.* "$c_dir"/claim.*; do
    [ "$c_one" = "$c_mine" ] || [ ! -e "$c_one" ] || rm -f "$c_one"
  done
  c_never=
  c_claim_stays || c_never="lost - its claim did not get to the disk, so it never began"
  c_wake USR1
  # Not by ":", with which a shell may end when that fails.
  true >>"$c_dir/out" || c_never="lost - there was no room for its output, so it never began"
  [ -z "$c_if_boot" ] || [ "$c_if_boot" = "$c_now" ] || c_never="boot $c_now"
  # Last, and with nothing of ours running beside us: who cancels from here on
  # finds the command.
  [ ! -e "$c_dir/cancel" ] || c_never=cancelled
  if [ -n "$c_never" ]; then
    c_finish "$c_never"
    c_wake USR2
    exit 0
  fi
  # No signal is caught while it runs: Cancel spares this shell, and systemd, which
  # stops only it (KillMode=process), must not wait for the command at shutdown.
  COMMISSAIRE_RUN=$c_dir
  export COMMISSAIRE_RUN
  cd /
  unset OLDPWD
  # A program, never a word of this shell's own, such as exit.
  (exec "$@") </dev/null >>"$c_dir/out" 2>&1
  c_code=$?
  # A cancel that comes too late must not end what writes down how it ended.
  trap '' TERM
  c_size
  c_finish "exit $c_code $c_bytes"
  c_wake USR2
  # Nobody waits for the pruning.
  if c_prune_due; then trap - TERM; c_prune & fi
}

c_prune_due() { # at most once in an hour
  c_last=0
  [ ! -s "$c_runs/.pruned" ] || read -r c_last <"$c_runs/.pruned"
  case $c_last in *[!0-9]*) c_last=0 ;; esac
  c_last=$((c_time - c_last))
  [ $c_last -ge 3600 ] || [ $c_last -le -3600 ]
}

c_prune() { # what ended a week ago, or was left by another boot, and has no process
  printf '%s\n' "$c_time" 2>/dev/null >"$c_runs/.pruned"
  for c_dir in $(find "$c_runs/." ! -name . -prune -type d -mtime +6 2>/dev/null); do
    c_dir=$c_runs/${c_dir##*/}
    if c_read_claim; then
      # The host's clock may have jumped. Both of these are of workers.
      case $c_start in 0* | *[!0-9]*) c_start=0 ;; esac
      [ $((c_time - c_start)) -ge 604800 ] || continue
      [ -e "$c_dir/rc" ] || [ "$c_boot" != "$c_now" ] || continue
    fi
    [ -z "$(c_marked)" ] || continue
    # Renamed first: half a directory must not look like a run.
    mv "$c_dir" "$c_runs/.old.$c_me" 2>/dev/null && rm -rf "$c_runs/.old.$c_me"
  done
}
