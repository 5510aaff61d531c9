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
  elif [ "$(id -u)" = 0 ]; then c_runs=/var/lib/commissaire/runs
  else c_runs=${XDG_STATE_HOME:-$HOME/.local/state}/commissaire/runs
  fi
}

c_open() { # key: says where everything of the key is
  c_state_dir
  c_dir=$c_runs/$1
  c_boot_id || c_die unusable "cannot read the boot id"
}

c_read_claim() { # false when nobody has claimed the key
  c_digest= c_boot= c_pid= c_tick= c_start=
  [ -e "$c_dir/claim" ] || return 1
  while read -r c_name c_value; do
    case $c_name in
    digest) c_digest=$c_value ;; boot) c_boot=$c_value ;; pid) c_pid=$c_value ;;
    tick) c_tick=$c_value ;; start) c_start=$c_value ;;
    esac
  done <"$c_dir/claim"
}

c_stat() { # pid: sets c_state c_session c_began of a process, false when there is none
  c_state= c_session= c_began=
  [ -r "/proc/$1/stat" ] && read -r c_line 2>/dev/null <"/proc/$1/stat" || return 1
  # The name, in parentheses, may hold anything.
  c_fields ${c_line##*") "}
}
c_fields() { c_state=$1 c_session=$4 c_began=${20}; }

c_runner_lives() { # a pid alone proves nothing: it may be another process by now
  [ "$c_boot" = "$c_now" ] && c_stat "$c_pid" && [ "$c_began" = "$c_tick" ] && [ "$c_state" != Z ]
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

c_sleep() { # milliseconds; a sleep without fractions waits the next full second
  c_frac=$(($1 % 1000 + 1000))
  sleep "$(($1 / 1000)).${c_frac#1}" 2>/dev/null || sleep $((($1 + 999) / 1000))
}

c_size() { # bytes printed so far
  c_bytes=$(stat -c %s "$c_dir/out" 2>/dev/null) || c_bytes=0
}

c_claim() { # digest: the one exclusive act. link(2) either makes the name or fails
  c_stat $$ || return 1
  # The end gets its space on the disk now, see c_finish.
  printf 'digest %s\nboot %s\npid %s\ntick %s\nstart %s\n' "$1" "$c_now" $$ "$c_began" "$(date +%s)" >"$c_dir/claim.$$" &&
    printf '%-80s\n' '' >"$c_dir/rc.$$" && c_sync "$c_dir/claim.$$" "$c_dir/rc.$$" &&
    ln "$c_dir/claim.$$" "$c_dir/claim" || { rm -f "$c_dir/claim.$$" "$c_dir/rc.$$"; return 1; }
  rm -f "$c_dir/claim.$$"
  c_sync "$c_dir" "$c_runs"
}

c_finish() { # words: how it ended, written last, whole and for good
  # Padded: it overwrites blocks that were reserved before the command began, so
  # a full disk cannot take the exit code away.
  printf '%-80s\n' "$*" 1<>"$c_dir/rc.$$" && c_sync "$c_dir/rc.$$" && mv -f "$c_dir/rc.$$" "$c_dir/rc"
  c_sync "$c_dir"
}
