# Streams a claimed run as frames, a line and then so many raw bytes:
#   R <digest> <boot id at start> <boot id now> <start, seconds>
#   O <offset> <length>     output
#   T <offset> <length>     the end of the output, after some was left out
#   N <boot id now>         nobody has claimed it (status only)
#   P                       it runs (status only)
#   A                       it lives and prints nothing
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
  fi
}

c_send() { # frame letter, length: from descriptor 3, where c_at is
  printf '%s %s %s\n' "$1" "$c_at" "$2" && dd bs="$2" count=1 <&3 2>/dev/null || exit 0
  c_at=$((c_at + $2))
}

c_text() { # length: sends so much from the beginning, false unless it is plain text
  c_line= c_said=
  while IFS= read -r c_line <&3; do c_said=$c_said$c_line$c_break; done
  c_said=$c_said$c_line
  [ ${#c_said} = "$1" ] || return 1
  case $c_said in *[!\ -~"$c_break"]*) return 1 ;; esac
  printf 'O 0 %s\n%s' "$1" "$c_said" || exit 0
  c_at=$1
}
c_break='
'

c_just_finished() { # we know it from its runner, who leaves when all is on the disk
  [ "$c_finished" = unit ] || [ "$c_finished" = "$c_pid" ]
}

c_output() { # all there is up to the limit
  if c_just_finished && [ "${c_end%% *}" = exit ]; then
    # So the runner's count holds. A word or two need no other program.
    c_bytes=${c_end##* }
    if [ $c_at = 0 ] && [ $c_bytes -gt 0 ] && [ $c_bytes -lt 2000 ] && [ $c_bytes -le $c_head ]; then
      c_text $c_bytes || exec 3<"$c_dir/out"
    fi
  else
    c_size
  fi
  c_until=$((c_bytes < c_head ? c_bytes : c_head))
  while [ $c_at -lt $c_until ]; do
    c_more=$((c_until - c_at))
    c_send O $((c_more < 131072 ? c_more : 131072))
    c_idle=10 c_quiet=0
  done
}

c_ending() { # sets c_end once the run is over
  c_ended && return
  ! c_alive || return 1
  c_ended && return # between the two looks
  case $c_boot in
  "$c_now") c_end="lost - its process is gone and left no exit code (killed, or out of memory)" ;;
  unknown) c_end="lost - it was claimed by half only, and never began" ;;
  *) c_end="lost - the host rebooted while it ran" ;;
  esac
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
  until [ -e "$c_dir/out" ] || c_ending; do c_nap 10; done
  if [ -e "$c_dir/out" ]; then
    exec 3<"$c_dir/out"
    [ $c_at = 0 ] || dd bs=1 skip=$c_at count=0 <&3 2>/dev/null
    while :; do
      # Looked at before the output, so that all of it is sent. The end is on the
      # disk once the runner has gone.
      if c_ending && { c_just_finished || ! c_runner_lives; }; then c_output; c_tail; break; fi
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
  case $c_end in
  lost*) printf 'E lost %s %s\n' "$c_bytes" "${c_end#lost - }" ;;
  *) printf 'E %s\n' "$c_end" ;;
  esac
}

c_status() { # one look, without output
  c_claimed || { echo "N $c_now"; return; }
  c_report
  c_size
  if c_ending && ! c_runner_lives; then c_answer; else echo P; fi
}
