# Streams a claimed run as frames, a line and then so many raw bytes:
#   R <digest> <boot id at start> <boot id now> <start, seconds>
#   O <offset> <length>     output
#   T <offset> <length>     the end of the output, after some was left out
#   N <boot id now>         nobody has claimed it (status only)
#   P                       it runs (status only)
#   A                       it lives and prints nothing
#   C                       it was told to end, before it had
#   E exit <code> <size> | E boot <id> | E cancelled | E lost <size> <reason>
#   X <kind> <message>      cannot be done

c_report() { printf 'R %s %s %s %s\n' "$c_digest" "$c_boot" "$c_now" "$c_start"; }

c_nap() { # milliseconds: sleeps so long, or, where somebody wakes us, until then
  c_napped=$1
  if [ -n "$c_asker" ] && [ "$c_finished" = none ]; then
    c_napped=1000
    [ -n "$c_woken" ] || wait "${c_child:-$c_asker}"
    # A child that has ended is waited for once. Its own children may go on.
    [ -n "$c_woken" ] || [ -z "$c_child" ] || c_finished=$c_child c_child=
    c_woken=
  else
    c_sleep "$1"
    c_napped=$c_slept
  fi
}

c_send() { # frame letter, length: from descriptor 3, where c_at is
  printf '%s %s %s\n' "$1" "$c_at" "$2" && dd bs="$2" count=1 <&3 2>/dev/null || exit 0
  c_at=$((c_at + $2))
}

c_output() { # all of c_bytes up to the limit
  c_until=$((c_bytes < c_head ? c_bytes : c_head))
  while [ $c_at -lt $c_until ]; do
    c_more=$((c_until - c_at))
    c_send O $((c_more < 131072 ? c_more : 131072))
    c_idle=10 c_quiet=0
  done
}

c_ending() { # sets c_end once the run is over
  c_ended && return
  # Claimed for nobody, by a cancel that came no further.
  [ "$c_digest" != cancelled ] || { c_end=cancelled; return; }
  ! c_alive || return 1
  c_ended && return # between the two looks
  case $c_boot in
  "$c_now") c_end="lost - its process is gone and left no exit code (killed, or out of memory)" ;;
  unknown) c_end="lost - its claim has lost its content, so whether it began is not known" ;;
  *) c_end="lost - the host rebooted while it ran" ;;
  esac
}

c_settled() { # sets c_end once the run is over and that is on the disk, which its runner sees to before it leaves
  c_ending && { [ "$c_finished" = unit ] || ! c_runner_lives; }
}

c_told() { # sets c_bytes to what the runner counted, if we have just seen it leave: later, the file may be shorter
  case $c_finished in unit | "$c_pid") set -- $c_end ;; *) return 1 ;; esac
  # 0 is also what it says when its stat was killed.
  [ "$1 $#" = "exit 3" ] && [ "$3" -gt 0 ] && c_bytes=$3
}

c_tail() { # what the limit left out, its last 64 KiB
  [ $c_bytes -gt $c_at ] || return 0
  c_skip=$((c_bytes - c_at - 65536))
  if [ $c_skip -gt 0 ]; then
    dd bs=1 skip=$c_skip count=0 <&3 2>/dev/null
    c_at=$((c_at + c_skip))
  fi
  c_send T $((c_bytes - c_at))
}

c_follow() { # offset, limit
  c_at=$1 c_head=$2 c_idle=10 c_quiet=0 c_bytes=0
  c_report
  until [ -e "$c_dir/out" ] || c_settled; do c_nap 10; done
  if [ -e "$c_dir/out" ]; then
    exec 3<"$c_dir/out"
    [ $c_at = 0 ] || dd bs=1 skip=$c_at count=0 <&3 2>/dev/null
    while :; do
      # Looked at before the output, so that all of it is sent.
      if c_settled; then c_told || c_size; c_output; c_tail; break; fi
      c_size
      c_output
      c_nap $c_idle
      c_quiet=$((c_quiet + c_napped))
      c_idle=$((c_idle < 750 ? c_idle + c_idle / 3 : 1000))
      if [ $c_quiet -ge 2000 ]; then c_quiet=0; printf 'A\n' || exit 0; fi
    done
  fi
  c_answer
}

c_answer() { # how it ended
  [ ! -e "$c_dir/cancel" ] || echo C
  case $c_end in
  lost*) printf 'E lost %s %s\n' "$c_bytes" "${c_end#lost - }" ;;
  *) printf 'E %s\n' "$c_end" ;;
  esac
}

c_status() { # one look, without output
  c_claimed || { echo "N $c_now"; return; }
  c_report
  c_size
  if c_settled; then c_answer; else echo P; fi
}
