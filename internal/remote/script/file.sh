# Files that stay on a host, notes of which services have yet to read them, and of what
# was written: a file per path, with the SHA-256 of each content.

c_fail() { # message: the answer "this cannot be done here"
  echo "$1" >&2
  exit 1
}

c_files() { # says where the notes are
  c_state_dir
  c_marks=${c_runs%/runs}/restart
  c_written=${c_runs%/runs}/files
}

c_sum() { # path: the SHA-256 of the file, - where nothing can tell
  c_hash=$(sha256sum 2>/dev/null <"$1") || c_hash=-
  echo "${c_hash%% *}"
}

c_look() { # path: what is there, and for a file its mode, owner, SHA-256 and content
  c_path=${COMMISSAIRE_OS_ROOT:-}$1
  if [ -L "$c_path" ]; then echo link; return; fi
  [ -e "$c_path" ] || { echo absent; return; }
  [ -f "$c_path" ] || { echo other; return; }
  # Without root nobody can give a file away.
  c_what='%a %U:%G'
  [ "$(id -u)" = 0 ] || c_what='%a -'
  # Three looks: of a file that is replaced meanwhile they may tell of either one. Who
  # replaces files at that moment undoes ours, too; the next bootstrap sees it.
  c_line=$(stat -c "$c_what" "$c_path") || exit 1
  echo "file $c_line $(c_sum "$c_path")"
  cat "$c_path"
}

c_note() { # marks: on the disk before a file changes, so that whoever comes next knows
  [ $# -gt 0 ] || return 0
  mkdir -p "$c_marks" || exit 1
  for c_one; do : >"$c_marks/$c_one" || exit 1; done
  c_sync "$c_marks" "${c_marks%/*}"
}

c_context() { # the label that SELinux wants for the path, which the temporary name would not get
  command -v selinuxenabled >/dev/null && selinuxenabled || return 0
  if c_label=$(matchpathcon -n "$c_path" 2>/dev/null); then chcon "$c_label" "$c_temp" 2>/dev/null
  elif command -v restorecon >/dev/null; then restorecon "$c_temp"
  fi
  return 0
}

c_clean() { # temporary files of writers that were killed; a name ends in its writer's process
  for c_one in "$c_folder/.$c_name.commissaire."*; do
    [ -e "$c_one" ] || continue
    c_pid=${c_one##*.}
    [ "$c_pid" != $$ ] && kill -0 "$c_pid" 2>/dev/null || rm -f "$c_one"
  done
}

c_ours() { # whether what is at the path was written here. No old secret of ours may stay,
  # so once one was written all count, also one that somebody changed a little.
  [ -e "$c_own" ] || return 1
  [ "$c_keep" = secret ] || grep -xF -e "$(c_sum "$c_path")" "$c_own" >/dev/null
}

c_claim_content() { # on the disk before the file is, so that nobody takes it for another's
  c_up=${c_own%/*}
  mkdir -p "$c_up" && c_sum "$c_temp" >>"$c_own" || c_undo
  set -- "$c_own"
  while [ "$c_up" != "${c_written%/*}" ]; do
    set -- "$@" "$c_up"
    c_up=${c_up%/*}
  done
  c_sync "$@" "$c_up"
}

c_write() { # path, mode, owner, bytes, "backup", "secret" (a backup, too) or "", marks.
  # The content is $c_content
  c_path=${COMMISSAIRE_OS_ROOT:-}$1 c_own=$c_written$1 c_mode=$2 c_owner=$3 c_bytes=$4 c_keep=$5
  shift 5
  c_folder=${c_path%/*} c_name=${c_path##*/}
  c_temp=$c_folder/.$c_name.commissaire.$$
  umask 077
  c_note "$@"
  [ -d "$c_folder" ] || { (umask 022; mkdir -p "$c_folder") && c_sync; } || exit 1
  c_clean
  # A here-document, since an argument could be read in the list of processes. It ends
  # in a line break, which is cut off again.
  { cat >"$c_temp" <<C_END
$c_content
C_END
  } && dd if=/dev/null of="$c_temp" bs=1 seek="$c_bytes" count=0 2>/dev/null || c_undo
  [ "$(stat -c %s "$c_temp")" = "$c_bytes" ] || c_undo "the file came out in another length"
  [ "$(id -u)" != 0 ] || chown "$c_owner" "$c_temp" || c_undo
  chmod "$c_mode" "$c_temp" || c_undo
  c_context
  c_sync "$c_temp"
  # What somebody else wrote gets a second name. That is done at once or not at all, and
  # never twice.
  if [ -n "$c_keep" ] && [ -e "$c_path" ] && [ ! -e "$c_path.before-commissaire" ] && ! c_ours; then
    ln "$c_path" "$c_path.before-commissaire" || [ -e "$c_path.before-commissaire" ] || c_undo
  fi
  c_claim_content
  mv -f "$c_temp" "$c_path" || c_undo
  c_sync "$c_folder"
}

c_undo() { # message or nothing
  rm -f "$c_temp"
  c_fail "${1:-$c_path stays as it was}"
}

c_marked_services() { # the notes, a line each
  for c_one in "$c_marks"/* "$c_marks"/.[!.]*; do
    [ ! -f "$c_one" ] || echo "${c_one##*/}"
  done
}

c_unmark() { # mark
  rm -f "$c_marks/$1" || exit 1
  [ ! -d "$c_marks" ] || c_sync "$c_marks"
}
