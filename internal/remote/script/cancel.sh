# Ends a run, or sees to it that one that was never started never will be.

c_pids() { # processes of the run but for its runner, by mark, and by session while the runner proves whose session it is
  c_marked
  c_runner_lives || return 0
  for c_file in /proc/[0-9]*; do
    c_one=${c_file#/proc/}
    c_stat "$c_one" && [ "$c_session" = "${c_leader:-$c_pid}" ] && [ "$c_state" != Z ] && ! c_logins && echo "$c_one"
  done
}

c_logins() { # whether it is the login's, whose session the run shares then: its shell, or what that has started
  [ "${c_leader:-$c_pid}" != "$c_pid" ] && { [ "$c_one" = "$c_leader" ] || [ "$c_parent" = "$c_leader" ]; }
}

c_signal() { # signal
  for c_one in $(c_pids); do
    [ "$c_one" = "$c_pid" ] || kill "-$1" "$c_one" 2>/dev/null
  done
}

c_begun() { # between claim and command there is nothing yet that a signal could end
  [ -n "$(c_pids | grep -vx "$c_pid")" ]
}

c_over() { [ -e "$c_dir/rc" ] && ! c_begun || ! c_alive; }

c_await() { # milliseconds, signal to repeat or nothing
  c_left=$1
  until c_over; do
    [ $c_left -gt 0 ] || return 1
    [ -z "$2" ] || c_signal "$2"
    c_sleep 50
    c_left=$((c_left - c_slept)) c_quiet=$((c_quiet + c_slept))
    if [ $c_quiet -ge 2000 ]; then c_quiet=0; echo A; fi
  done
}

c_cancel() { # grace in milliseconds
  c_quiet=0
  umask 077
  if ! c_claimed; then
    # Claimed for nobody, so that a starter on its way finds it taken.
    c_time=$(date +%s)
    c_me=$$ c_mine=$c_dir/claim.$$-$c_time
    c_error=$(mkdir -p "$c_dir" 2>&1 && c_claim cancelled "$c_time" 2>&1) && c_claim_stays && c_finish cancelled
    c_claimed || c_die unusable "cancel $c_dir: $c_error"
  fi
  if [ ! -e "$c_dir/rc" ] && ! c_over; then
    # For a runner that has not begun: what we signal may be its sync or mkdir. And for who
    # reads its end. A second name of the claim needs no room on a full disk.
    true >"$c_dir/cancel" || ln "$c_dir/claim" "$c_dir/cancel"
    c_left=2000
    until c_begun || c_over || [ $c_left -le 0 ]; do c_sleep 20; c_left=$((c_left - c_slept)); done
    c_signal TERM
    if ! c_await "$1" '' && ! c_await 3000 KILL; then
      # The runner itself, if it still is the one of the claim.
      c_runner_lives && kill -KILL "$c_pid"
      c_await 3000 KILL || c_die unusable "processes of $c_dir do not die: $(c_pids | tr '\n' ' ')"
    fi
  fi
}
