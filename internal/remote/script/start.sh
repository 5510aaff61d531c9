# Starts the command unless its key is claimed. Waits for the claim, whoever wins.
# Given: c_lib, the shared functions; c_runner, the runner's; c_job_text, what to
# run; c_want, the digest; c_time, the time.

c_start() { # unique name of the job, "wait" if we stay until the end
  case $c_dir in *[!A-Za-z0-9/._+-]*) c_die unusable "state directory $c_runs has characters other than A-Za-z0-9/._+-" ;; esac
  c_job=$c_dir/job.$1
  c_claimed || c_launch "$2"
  c_waited=0
  until c_claimed; do
    if [ -e "$c_job.failed" ]; then
      c_die unusable "cannot claim the run in $c_dir: $(cat "$c_job.failed"); $(c_disk)"
    fi
    if [ $c_waited -ge 15000 ]; then
      c_die unusable "the detached process did not claim $c_dir within 15 s; ${c_error:-the host gave no reason}; $(c_disk)"
    fi
    c_nap $((c_waited < 200 ? 10 : 200))
    c_waited=$((c_waited + c_napped))
  done
  case $c_digest in
  "$c_want" | cancelled | unknown) ;;
  *) c_die conflict "the key $c_dir was used for another command" ;;
  esac
}

c_disk() { # why a write fails is more than every shell tells
  c_line=$(df -Pk "$c_runs" | tail -n 1)
  case $c_line in
  *" 100% "*) echo "no space left on the disk: $c_line" ;;
  *) echo "the disk: $c_line" ;;
  esac
}

c_launch() { # "wait" or nothing
  if [ ! -d "$c_runs" ]; then # once in a host's life: its parents must outlive a power cut, too
    c_error=$(umask 077; mkdir -p "$c_runs" 2>&1) || c_die unusable "make $c_runs: $c_error"
    sync
  fi
  # Nobody else can enter it, whatever the login's umask gives the files in it.
  mkdir -p -m 700 "$c_dir" 2>/dev/null || c_error=$(mkdir -p -m 700 "$c_dir" 2>&1) || c_die unusable "make $c_dir: $c_error"
  if [ -d "${COMMISSAIRE_OS_ROOT:-}/run/systemd/system" ] && command -v systemd-run >/dev/null && c_root; then
    if [ -n "$1" ]; then c_expect; fi
    c_write_job
    # A unit of its own outlives the session even where logind kills what a user
    # leaves behind. Only the path of the file is given: systemd would expand $
    # and % in anything else. A unit of that name is this key's: attach.
    c_unit=${c_dir##*/}
    c_error=$(systemd-run --quiet --collect --no-block --unit="commissaire-${c_unit%%-*}" --property=KillMode=process --setenv="COMMISSAIRE_RUN=$c_dir" /bin/sh "$c_job" 2>&1 </dev/null 9<&-)
    return
  fi
  if c_stat $$ && [ "$c_session $c_tty" = "$$ 0" ]; then
    # sshd has given us a session of our own without a terminal, which nothing hangs
    # up: a copy of us outlives us. It costs no program.
    c_login=$$
    {
      trap : HUP
      eval "$c_job_text
$c_runner"
      c_run "$@"
    } </dev/null >/dev/null 2>&1 9<&- &
  elif c_write_job; command -v setsid >/dev/null; then
    COMMISSAIRE_RUN=$c_dir setsid sh "$c_job" </dev/null >/dev/null 2>&1 9<&- &
  else
    (trap '' HUP; COMMISSAIRE_RUN=$c_dir exec sh "$c_job") </dev/null >/dev/null 2>&1 9<&- &
  fi
  c_child=$!
  if [ -n "$1" ]; then c_expect; else c_child=; fi
}

c_write_job() { # a whole file or none. The environment goes with it because a unit would not inherit it
  c_error=$({ printf 'umask ' && umask && printf '%s\n' "c_dir=$c_dir c_runs=$c_runs c_job=$c_job c_want=$c_want c_time=$c_time c_starter=$c_starter c_login=" \
    "$c_job_text" "$c_lib" "$c_runner" 'c_env() {' && export -p && printf '%s\n' '}' c_env 'c_run "$@"' exit; } 2>&1 >"$c_job") ||
    { rm -f "$c_job"; c_die unusable "write $c_job: $c_error; $(c_disk)"; }
}

c_expect() { # from now on the end of our child wakes us, a runner that is none, and each line from the client
  c_stat $$ && c_starter=$$:$c_began
  trap c_woken=1 USR1
  trap 'c_woken=1 c_finished=unit' USR2
  (while read -r c_line; do c_wake USR1 || exit; done; c_wake TERM) <&9 >/dev/null 2>&1 &
  c_asker=$!
  trap 'kill $c_asker 2>/dev/null' EXIT
}
