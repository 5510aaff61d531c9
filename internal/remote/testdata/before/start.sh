# Starts the command unless its key is claimed. Waits for the claim, whoever wins.
# Given: c_job_text, the job file but for the environment; c_want, the digest.

c_start() { # unique name of the job file
  case $c_dir in *[!A-Za-z0-9/._+-]*) c_die unusable "state directory $c_runs has characters other than A-Za-z0-9/._+-" ;; esac
  c_job=$c_dir/job.$1
  c_read_claim || c_launch
  c_waited=0
  until c_read_claim; do
    if [ -e "$c_job.failed" ]; then
      c_die unusable "cannot claim the run in $c_dir: $(cat "$c_job.failed"); $(c_disk)"
    fi
    if [ $c_waited -ge 15000 ]; then
      c_die unusable "the detached process did not claim $c_dir within 15 s; ${c_error:-the host gave no reason}"
    fi
    c_sleep $((c_waited < 200 ? 10 : 200))
    c_waited=$((c_waited + (c_waited < 200 ? 10 : 200)))
  done
  [ "$c_digest" = "$c_want" ] || [ "$c_digest" = cancelled ] || c_die conflict "the key $c_dir was used for another command"
}

c_disk() { # why a write fails is more than every shell tells
  c_line=$(df -Pk "$c_runs" | tail -n 1)
  case $c_line in
  *" 100% "*) echo "no space left on the disk: $c_line" ;;
  *) echo "the disk: $c_line" ;;
  esac
}

c_launch() {
  c_umask=$(umask)
  umask 077
  if [ ! -d "$c_runs" ]; then # once in a host's life: its parents must outlive a power cut, too
    c_error=$(mkdir -p "$c_runs" 2>&1) || c_die unusable "make $c_runs: $c_error"
    sync
  fi
  c_error=$(mkdir -p "$c_dir" 2>&1) || c_die unusable "make $c_dir: $c_error"
  # A whole job file or none: the environment goes with it because a systemd unit
  # would not inherit it.
  c_error=$({ printf '%s\n' "c_dir=$c_dir c_runs=$c_runs c_job=$c_job c_want=$c_want c_umask=$c_umask" "$c_job_text" 'c_env() {' && export -p && printf '%s\n' '}' 'c_run "$@"' 'exit'; } 2>&1 >"$c_job") ||
    { rm -f "$c_job"; c_die unusable "write $c_job: $c_error; $(c_disk)"; }
  if [ -d "${COMMISSAIRE_OS_ROOT:-}/run/systemd/system" ] && command -v systemd-run >/dev/null && [ "$(id -u)" = 0 ]; then
    # A unit of its own outlives the session even where logind kills what a user
    # leaves behind. Only the path of the file is given: systemd would expand $
    # and % in anything else. A unit of that name is this key's: attach.
    c_unit=${c_dir##*/}
    c_error=$(systemd-run --quiet --collect --no-block --unit="commissaire-${c_unit%%-*}" --property=KillMode=process --setenv="COMMISSAIRE_RUN=$c_dir" /bin/sh "$c_job" 2>&1 </dev/null)
  elif command -v setsid >/dev/null; then
    COMMISSAIRE_RUN=$c_dir setsid sh "$c_job" </dev/null >/dev/null 2>&1 &
  else
    (trap '' HUP; COMMISSAIRE_RUN=$c_dir exec sh "$c_job") </dev/null >/dev/null 2>&1 &
  fi
}
