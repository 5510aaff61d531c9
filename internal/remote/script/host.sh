# What every script below shares. All names begin with c_, so that nothing that
# the login exports is touched. Keys are directories: $c_runs/<key>.

c_die() { # kind, message: the answer "it cannot be done"
  printf 'X %s %s\n' "$1" "$2" | tr '\n' ' '; echo
  exit 0
}

c_boot_id() { # the only reader of the boot id
  read -r c_now <"${COMMISSAIRE_BOOT_ID_FILE:-/proc/sys/kernel/random/boot_id}"
}

c_state_dir() {
  if [ -n "${COMMISSAIRE_STATE_DIR:-}" ]; then c_runs=$COMMISSAIRE_STATE_DIR/runs
  elif c_root; then c_runs=/var/lib/commissaire/runs
  else c_runs=${XDG_STATE_HOME:-$HOME/.local/state}/commissaire/runs
  fi
}

c_root() { # whether we are: the first process is root's, and only root owns what is root's
  [ -O /proc/1 ]
}

c_open() { # key: says where everything of the key is
  c_child= c_asker= c_starter= c_login= c_woken= c_finished=none c_end=
  c_state_dir
  c_dir=$c_runs/$1
  c_boot_id || c_die unusable "cannot read the boot id"
}

c_claimed() { # false when nobody has claimed the key
  # Twice: a claim that comes between the looks at content and name comes whole.
  for c_look in 1 2; do
    c_read_claim && return
    [ -e "$c_dir/claim" ] || return 1
  done
  # The disk has lost it. Nobody can claim again what has that name.
  c_digest=unknown c_boot=unknown c_start=0
}

c_read_claim() { # false unless there is a whole claim
  c_digest= c_boot= c_pid= c_tick= c_leader= c_start=
  [ -e "$c_dir/claim" ] || return 1
  while read -r c_name c_value; do
    case $c_name in
    digest) c_digest=$c_value ;; boot) c_boot=$c_value ;; pid) c_pid=$c_value ;;
    tick) c_tick=$c_value ;; leader) c_leader=$c_value ;; start) c_start=$c_value ;;
    esac
  done <"$c_dir/claim"
  [ -n "$c_start" ]
}

c_ended() { # sets c_end when it is written how the run ended
  # An empty one lost its content in a power cut.
  c_end=
  [ ! -s "$c_dir/rc" ] || read -r c_end <"$c_dir/rc" || c_end=
  [ -n "$c_end" ]
}

c_stat() { # pid: sets c_state c_parent c_session c_tty c_began of a process, false when there is none
  c_state= c_parent= c_session= c_tty= c_began=
  [ -r "/proc/$1/stat" ] && read -r c_line 2>/dev/null <"/proc/$1/stat" || return 1
  # The name, in parentheses, may hold anything.
  c_fields ${c_line##*") "}
}
c_fields() { c_state=$1 c_parent=$2 c_session=$4 c_tty=$5 c_began=${20}; }

c_runner_lives() { # a pid alone proves nothing: it may be another process by now
  [ "$c_boot" = "$c_now" ] && c_stat "$c_pid" && [ "$c_began" = "$c_tick" ] && [ "$c_state" != Z ]
}

c_wake() { # signal: for the shell that waits for the runner, if there is one, and it still is that one
  [ -n "$c_starter" ] && c_stat "${c_starter%:*}" && [ "$c_began" = "${c_starter#*:}" ] && kill "-$1" "${c_starter%:*}" 2>/dev/null
}

c_marked() { # pids of the processes that carry the mark of this run
  # tail names each file before its content; not every grep reads beyond a NUL.
  tail -c +1 /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' |
    grep -F -e '==> /proc/' -e "COMMISSAIRE_RUN=$c_dir" | while read -r c_word; do
    case $c_word in
    "==> /proc/"*) c_one=${c_word#"==> /proc/"} ;;
    "COMMISSAIRE_RUN=$c_dir") echo "${c_one%%/*}" ;;
    esac
  done
}

c_alive() { # whether anything of the run still runs
  [ "$c_boot" = "$c_now" ] || return 1
  c_runner_lives || [ -n "$(c_marked)" ]
}

c_sync() { # the files and directories are on the disk; old tools sync everything
  sync "$@" 2>/dev/null || sync
}

c_sleep() { # milliseconds; a sleep without fractions waits the next full second. Sets c_slept to how long it was
  c_frac=$(($1 % 1000 + 1000)) c_slept=$1
  sleep "$(($1 / 1000)).${c_frac#1}" 2>/dev/null && return
  c_slept=$((($1 + 999) / 1000))
  sleep $c_slept
  c_slept=$((c_slept * 1000))
}

c_size() { # bytes printed so far
  c_bytes=0
  [ ! -s "$c_dir/out" ] || c_bytes=$(stat -c %s "$c_dir/out" 2>/dev/null) || c_bytes=0
}

c_claim() { # digest, time: for process $c_me, the one exclusive act. link(2) either makes the name or fails
  # Whoever sees the name sees all of it: it is whole before, under $c_mine, which
  # nobody else uses, and is never taken away. It may be seen before it is on the disk:
  # a power cut then takes it, or its content, away, but nothing has begun, see
  # c_claim_stays. Its first line is the place of the end.
  [ ! -e "$c_dir/claim" ] && c_stat "$c_me" || return 1
  printf '%-80s\ndigest %s\nboot %s\npid %s\ntick %s\nleader %s\nstart %s\n' '' "$1" "$c_now" "$c_me" "$c_began" "${c_login:-$c_me}" "$2" >"$c_mine" &&
    { ln "$c_mine" "$c_dir/claim" || c_is_mine; } || { rm -f "$c_mine"; return 1; }
}

c_is_mine() { # whether the claim is ours. Who tells us that ln failed may have been killed after it did not
  c_read_claim && [ "$c_pid" = "$c_me" ] && c_runner_lives
}

c_claim_stays() { # the claim, and by that its place for the end, outlives a power cut from here on
  c_sync "$c_dir/claim" "$c_dir" "$c_runs"
}

c_finish() { # words: how it ended, for good
  # Written over what the claim has kept for it, so that a full disk cannot take it
  # away: rc is another name of the claim then. An empty rc says nothing. Who has seen us
  # leave knows that it is on the disk: if a power cut comes before that, it is empty, or
  # there is no rc. Tried again because Cancel, which spares us, may kill what we call.
  for c_try in 1 2 3 4 5; do
    printf '%-80s\n' "$*" 1<>"$c_dir/claim" &&
      { [ -s "$c_dir/rc" ] || printf '%s\n' "$*" 2>/dev/null >"$c_dir/rc" || mv -f "$c_mine" "$c_dir/rc" || ln -f "$c_dir/claim" "$c_dir/rc"; } &&
      c_sync "$c_dir/claim" "$c_dir/rc" "$c_dir" && return
  done
  return 1
}
