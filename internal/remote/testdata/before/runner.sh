# The detached process. It stands in the job file, between what the starter says
# about the command and the login's environment, and is the only one to claim.

c_run() { # the command
  c_env
  umask 077
  c_boot_id || exit 1
  if ! c_why=$(c_claim "$c_want" 2>&1); then
    # Lost to another runner: not a trace. Otherwise the starter wants to know.
    [ -e "$c_dir/claim" ] || printf '%s\n' "$c_why" >"$c_job.failed"
    rm -f "$c_job"
    exit 0
  fi
  rm -f "$c_dir"/job.* "$c_dir"/claim.*
  : >>"$c_dir/out"
  if [ -n "$c_if_boot" ] && [ "$c_if_boot" != "$c_now" ]; then
    c_finish "boot $c_now"
    exit 0
  fi
  # No signal is caught here: Cancel spares this shell, and systemd, which stops
  # only it (KillMode=process), must not wait for the command at shutdown.
  COMMISSAIRE_RUN=$c_dir
  export COMMISSAIRE_RUN
  cd /
  unset OLDPWD
  umask "$c_umask"
  "$@" </dev/null >>"$c_dir/out" 2>&1
  c_code=$?
  umask 077
  c_size
  c_finish "exit $c_code $c_bytes $(date +%s)"
  c_prune
}

c_prune() { # what ended a week ago, or was left by another boot, and has no process
  for c_dir in $(find "$c_runs/." ! -name . -prune -type d -mtime +6 2>/dev/null); do
    c_dir=$c_runs/${c_dir##*/}
    if c_read_claim && [ ! -e "$c_dir/rc" ] && [ "$c_boot" = "$c_now" ]; then continue; fi
    [ -z "$(c_marked)" ] || continue
    # Renamed first: half a directory must not look like a run.
    mv "$c_dir" "$c_runs/.old.$$" 2>/dev/null && rm -rf "$c_runs/.old.$$"
  done
}
