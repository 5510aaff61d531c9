#!/bin/sh
# Stand-in for the commands that change a machine. It acts on the folder of the
# test host ($FLEET_HOST) and answers as the real command would, as far as the
# product looks at the answer. One file under many names: $0 says which it plays.
set -u
H=$FLEET_HOST
me=${0##*/}
[ -f "$H/hooks/$me" ] && . "$H/hooks/$me"

note() { # one line of the ledger; short appends to one file are atomic
  printf '%s %s %s %s\n' "$(date +%s.%N)" "$(cat "$H/boot_id")" "$me" "$*" >>"$H/ledger"
}
power() { note "$@"; echo reboot >"$H/power"; }
locked() { [ -e "$H/lock" ]; }
patience() { # seconds: waits for the lock to go, false when it does not
  n=0
  while locked; do
    [ $n -lt "$1" ] || return 1
    n=$((n + 1)); sleep 1
  done
}
words() { # the arguments that are not options; -o and its like take one more
  skip=
  for w in "$@"; do
    [ -n "$skip" ] && { skip=; continue; }
    case $w in -o|-c|-f|-t|--setopt) skip=1 ;; -*) ;; *) printf '%s\n' "$w" ;; esac
  done
}
version() { cat "$H/pkg/$1" 2>/dev/null; }
newest() { cat "$H/repo/$1" 2>/dev/null; }
put() { # write whole or not at all
  printf '%s\n' "$2" >"$1.new$$" && mv "$1.new$$" "$1"
}
install_one() {
  old=$(version "$1") new=$(newest "$1")
  new=${new:-${old:-1.0}}
  [ "$old" = "$new" ] && { echo "$1 is already the newest version ($old)."; return; }
  put "$H/pkg/$1" "$new"
  echo "Installed $1 $new${old:+ (was $old)}"
  # Debian starts what it installs.
  [ -n "$old" ] || [ "$me" != apt-get ] || case $1 in containerd|docker.io|kubelet) : >"$H/units/$1.enabled"; : >"$H/units/$1.active" ;; esac
  case $1 in kernel*|linux-image*|systemd|glibc|libc6)
    echo "*** System restart required ***" >"$H/root/run/reboot-required"
    echo "$1" >>"$H/root/run/reboot-required.pkgs" ;;
  esac
}
outdated() {
  for p in "$H"/pkg/*; do
    [ -f "$p" ] || continue
    n=${p##*/}; v=$(newest "$n")
    [ -n "$v" ] && [ "$v" != "$(version "$n")" ] && echo "$n"
  done
}

simulate() { # apt-get -s
  for p in $(outdated); do echo "Inst $p [$(version "$p")] ($(newest "$p") fleet:stable [amd64])"; done
  for p in $(outdated); do echo "Conf $p ($(newest "$p") fleet:stable [amd64])"; done
}
list_updates() { # zypper; as XML when asked
  case " $* " in
  *" --xmlout "*)
    printf "<?xml version='1.0'?>\n<stream>\n<update-status version=\"0.6\">\n<update-list>\n"
    for p in $(outdated); do
      printf '<update kind="package" name="%s" edition="%s-1" arch="x86_64" edition-old="%s-1"><summary>test %s</summary><source url="file:/fleet" alias="fleet"/></update>' "$p" "$(newest "$p")" "$(version "$p")" "$p"
    done
    printf '</update-list>\n</update-status>\n</stream>\n' ;;
  *) for p in $(outdated); do echo "v | fleet | $p | $(version "$p")-1 | $(newest "$p")-1 | x86_64"; done ;;
  esac
}
busy() { # says who has the lock, as the real ones do, and with which exit code
  by=$(cat "$H/lock" 2>/dev/null)
  case $me in
  apt-get)
    [ "$1" = update ] || {
      echo "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process $by (apt-get)..." >&2
      patience "$(printf '%s\n' "$@" | sed -n 's/^DPkg::Lock::Timeout=//p' | grep . || echo 0)" && return
      echo "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?" >&2
      exit 100
    }
    echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process $by (apt-get)" >&2
    echo "E: Unable to lock directory /var/lib/apt/lists/" >&2
    exit 100 ;;
  dnf|yum)
    case " $* " in *exit_on_lock=True*) echo "RPMDB already locked by $by" >&2; exit 200 ;; esac
    echo "Waiting for process with pid $by to finish."
    patience 600 || exit 200 ;;
  zypper)
    patience "${ZYPP_LOCK_TIMEOUT:-0}" && return
    echo "System management is locked by the application with pid $by (zypper)." >&2
    echo "Close this application before trying again." >&2
    exit 7 ;;
  rpm-ostree)
    echo "error: Transaction in progress: upgrade" >&2
    echo " You can cancel the current transaction with \`rpm-ostree cancel\`" >&2
    exit 1 ;;
  bootc) patience 600 || exit 1 ;;
  esac
}

packages() { # dnf, yum, apt-get, zypper
  case " $* " in *" -s "*) simulate; return ;; esac
  if [ "$me" = zypper ] && [ "$(words "$@")" = list-updates ]; then list_updates "$@"; return; fi
  set -- $(words "$@")
  verb=${1:-}; [ $# -gt 0 ] && shift
  case $verb in
  install|reinstall) for p; do install_one "$p"; done ;;
  upgrade|update|dist-upgrade|full-upgrade|upgrade-minimal|distro-sync)
    [ "$me $verb" = "apt-get update" ] && { echo "Reading package lists..."; return; }
    [ $# -gt 0 ] || set -- $(outdated)
    [ $# -gt 0 ] || echo "Nothing to do."
    for p; do install_one "$p"; done ;;
  remove|purge|erase) for p; do rm -f "$H/pkg/$p"; echo "Removed $p"; done ;;
  check-update)
    o=$(outdated); [ -n "$o" ] || return 0
    for p in $o; do echo "$p.x86_64 $(newest "$p") updates"; done; return 100 ;;
  needs-restarting) needs_restarting ;;
  needs-rebooting) needs_restarting >&2 || return 102 ;;
  makecache|refresh|clean|autoremove|list|info|repoquery) ;;
  *) echo "$me: no such command: $verb" >&2; return 1 ;;
  esac
}
needs_restarting() {
  [ -f "$H/root/run/reboot-required" ] || {
    printf 'No core libraries or services have been updated since boot-up.\nReboot should not be necessary.\n'; return 0; }
  echo "Core libraries or services have been updated since boot-up:"
  sed 's/^/  * /' "$H/root/run/reboot-required.pkgs"
  printf '\nReboot is required to fully utilize these updates.\n'; return 1
}
mutates() { # only what changes the host is in its ledger
  case " $* " in *" -s "*) return 1 ;; esac
  case "$me $(words "$@" | head -n 1)" in
  "apt-get update"|*" "|*" check-update"|*" needs-re"*|*" list"*|*" info"|*" repoquery"|*" makecache"|*" refresh") return 1 ;;
  esac
}

render() { # format name: the few tags in use by dpkg-query -f and rpm --qf
  v=$(version "$2")
  printf "$(printf '%s' "$1" | sed -e "s/[\$%]{[Pp]ackage}/$2/g; s/%{NAME}/$2/g; s/%{[A-Za-z]*VERSION}/$v/g; s/%{EVR}/$v/g; s/%{RELEASE}/1/g; s/%{ARCH}/x86_64/g" \
    -e "s/[\$]{[Vv]ersion}/$v/g; s/[\$]{[Ss]tatus}/install ok installed/g; s/[\$]{db:Status-[A-Za-z]*}/installed/g; s/[\$]{Architecture}/amd64/g")"
}
query() { # dpkg-query, rpm: default format, not-found message as printf format, arguments
  fmt=$1 missing=$2; shift 2
  names= all=
  while [ $# -gt 0 ]; do
    case $1 in
    -f|--qf|--queryformat|--showformat) fmt=$2; shift ;;
    -f=*|--qf=*|--queryformat=*|--showformat=*) fmt=${1#*=} ;;
    -f*) fmt=${1#-f} ;;
    -qa|-a|--all) all=1 ;;
    -*) ;;
    *) names="$names $1" ;;
    esac
    shift
  done
  if [ -n "$all" ] || [ -z "$names" ]; then names=$(ls "$H/pkg"); fi
  rc=0
  for n in $names; do
    if [ -f "$H/pkg/$n" ]; then render "$fmt" "$n"; else printf "$missing" "$n" >&2; rc=1; fi
  done
  return $rc
}

audit() { # dpkg --audit
  [ -s "$H/halfway" ] || return 0
  printf 'The following packages are only half configured, probably due to problems\nconfiguring them the first time.  The configuration should be retried using\ndpkg --configure <package> or the configure menu option in dselect:\n'
  sed 's/.*/ &                  test &/' "$H/halfway"; echo
}

digest() { d=$(printf '%s' "$1" | sha256sum); printf 'sha256:%s' "${d%% *}"; }
deployment() { # json of one deployment: version booted staged
  s=$(digest "$1")
  printf '{"osname":"fleet","version":"%s","checksum":"%s","booted":%s,"staged":%s,"origin":"fleet:fleet/stable","packages":[]}' "$1" "${s#*:}" "$2" "$3"
}
ostree() {
  booted=$(cat "$H/ostree/booted"); staged=$(cat "$H/ostree/staged" 2>/dev/null); back=$(cat "$H/ostree/rollback" 2>/dev/null)
  verb=${1:-}; [ $# -gt 0 ] && shift
  unchanged=0 reboot= json= check= want=
  for a; do
    case $a in
    --unchanged-exit-77) unchanged=77 ;; -r|--reboot) reboot=1 ;; --json) json=1 ;; --check) check=1 ;;
    -*) ;; version=*|revision=*) want=${a#*=} ;; *) want=$a ;;
    esac
  done
  case $verb in
  status)
    if [ -n "$json" ]; then
      printf '{"deployments":['
      [ -n "$staged" ] && { deployment "$staged" false true; printf ','; }
      deployment "$booted" true false
      [ -n "$back" ] && { printf ','; deployment "$back" false false; }
      printf '],"transaction":null}\n'
    else
      printf 'State: idle\nDeployments:\n'
      [ -n "$staged" ] && printf '  fleet:fleet/stable\n    Version: %s (staged)\n' "$staged"
      printf '* fleet:fleet/stable\n    Version: %s\n' "$booted"
      [ -n "$back" ] && printf '  fleet:fleet/stable\n    Version: %s\n' "$back"
    fi
    return 0 ;;
  upgrade|update) want=$(cat "$H/ostree/remote") ;;
  rebase) want=$(cat "$H/ostree/remote") ;;
  deploy)
    for v in $(cat "$H/ostree/known"); do [ "sha256:$want" != "$(digest "$v")" ] || want=$v; done
    grep -qxF "$want" "$H/ostree/known" || { echo "error: Version $want not found in fleet:fleet/stable" >&2; return 1; } ;;
  rollback) [ -n "$back" ] || { echo "error: No rollback deployment found" >&2; return 1; }; want=$back ;;
  cleanup) note "$verb" "$@"; rm -f "$H/ostree/staged"; return 0 ;;
  *) echo "error: Unknown command '$verb'" >&2; return 1 ;;
  esac
  if [ -n "$check" ]; then
    [ "$want" = "$booted" ] && return 77
    printf 'AvailableUpdate:\n        Version: %s\n' "$want"; return 0
  fi
  ! locked || busy
  note "$verb" "$@"
  if [ "$want" = "${staged:-$booted}" ]; then echo "No upgrade available."; return $unchanged; fi
  if [ "$want" = "$booted" ]; then rm -f "$H/ostree/staged"; else put "$H/ostree/staged" "$want"; fi
  echo 'Staging deployment... done'; echo 'Run "systemctl reboot" to start a reboot'
  [ -n "$reboot" ] && power "$verb" reboot
  return 0
}

image() { cat "$H/ostree/image-$1" 2>/dev/null || cat "$H/ostree/image"; } # reference of a version
entry() { # json of one of bootc's systems: version
  [ -n "$1" ] || { printf null; return; }
  printf '{"image":{"image":{"image":"%s","transport":"registry"},"version":"%s","timestamp":null,"imageDigest":"%s"},"cachedUpdate":null,"incompatible":false,"pinned":false,"ostree":{"checksum":"%s","deploySerial":0}}' \
    "$(image "$1")" "$1" "$(digest "$1")" "$(digest "$1" | cut -d : -f 2)"
}
bootc() {
  booted=$(cat "$H/ostree/booted"); staged=$(cat "$H/ostree/staged" 2>/dev/null); back=$(cat "$H/ostree/rollback" 2>/dev/null)
  verb=${1:-}; [ $# -gt 0 ] && shift
  case $verb in
  status)
    printf '{"apiVersion":"org.containers.bootc/v1","kind":"BootcHost","metadata":{"name":"host"},"spec":{"image":{"image":"%s","transport":"registry"},"bootOrder":"default"},"status":{"staged":%s,"booted":%s,"rollback":%s,"rollbackQueued":false,"type":"bootcHost"}}\n' \
      "$(image "${staged:-$booted}")" "$(entry "$staged")" "$(entry "$booted")" "$(entry "$back")"
    return ;;
  upgrade) ref=$(image "${staged:-$booted}") want=$(cat "$H/ostree/remote") ;;
  switch)
    ref=$(words "$@") want=
    for v in $(cat "$H/ostree/known"); do
      case $ref in *":$v"|*"@$(digest "$v")") want=$v ;; esac
    done
    [ -n "$want" ] || { echo "error: Switching: Pulling: Creating importer: failed to invoke method OpenImage: reading manifest: manifest unknown" >&2; return 1; }
    [ "$ref" != "$(image "$booted")" ] || { echo "Image specification is unchanged."; note "$verb" "$@"; return; } ;;
  *) echo "error: unrecognized subcommand '$verb'" >&2; return 2 ;;
  esac
  ! locked || busy
  note "$verb" "$@"
  [ "$want" != "${staged:-$booted}" ] || { echo "No changes in: docker://$ref"; return; }
  put "$H/ostree/image-$want" "$ref"
  if [ "$want" = "$booted" ]; then rm -f "$H/ostree/staged"; else put "$H/ostree/staged" "$want"; fi
  echo "Queued for next boot: docker://$ref"; echo "  Version: $want"
}

unit_there() { # a unit comes with its package, or a test has made it
  case $1 in
  flanneld) p=flannel ;;
  crio) p=cri-o ;;
  docker) p='docker docker.io' ;;
  kubelet|kube-proxy) p='kubernetes-node kubelet' ;;
  systemd-*) p=systemd ;;
  *) p=$1 ;;
  esac
  for p in $p; do [ ! -f "$H/pkg/$p" ] || return 0; done
  [ -f "$H/units/$1.active" ] || [ -f "$H/units/$1.enabled" ] || [ -f "$H/units/$1.unit" ]
}
show() { # unit
  if ! unit_there "$1"; then printf 'LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n'; return; fi
  echo LoadState=loaded
  if [ -f "$H/units/$1.failed" ]; then printf 'ActiveState=failed\nSubState=failed\n'
  elif [ -f "$H/units/$1.active" ]; then printf 'ActiveState=active\nSubState=running\n'
  else printf 'ActiveState=inactive\nSubState=dead\n'; fi
  if [ -f "$H/units/$1.enabled" ]; then echo UnitFileState=enabled; else echo UnitFileState=disabled; fi
}
systemctl() {
  verb= units= now=
  for a; do case $a in --now) now=1 ;; -*) ;; *) if [ -z "$verb" ]; then verb=$a; else units="$units ${a%.service}"; fi ;; esac; done
  case $verb in
  reboot) power "$@"; return ;;
  is-system-running) echo running; return 0 ;;
  daemon-reload) note "$@"; return 0 ;;
  is-active|is-enabled)
    for u in $units; do
      if [ -f "$H/units/$u.${verb#is-}" ]; then echo "${verb#is-}"; else
        if [ "$verb" = is-active ]; then echo inactive; return 3; fi
        echo disabled; return 1
      fi
    done; return 0 ;;
  show) for u in $units; do show "$u"; done; return 0 ;;
  status) for u in $units; do echo "$u"; done; return 0 ;;
  esac
  for u in $units; do
    unit_there "$u" && continue
    case $verb in
    start|restart) echo "Failed to $verb $u.service: Unit $u.service not found." >&2; return 5 ;;
    enable) echo "Failed to enable unit: Unit file $u.service does not exist." >&2; return 1 ;;
    esac
  done
  note "$@"
  for u in $units; do
    case $verb in
    start|restart|reload-or-restart|try-restart|reload) rm -f "$H/units/$u.failed"; : >"$H/units/$u.active" ;;
    stop|kill) rm -f "$H/units/$u.active" ;;
    enable) : >"$H/units/$u.enabled"; [ -n "$now" ] && : >"$H/units/$u.active" ;;
    disable) rm -f "$H/units/$u.enabled"; [ -n "$now" ] && rm -f "$H/units/$u.active" ;;
    mask|unmask|reset-failed) ;;
    *) echo "Unknown command verb $verb." >&2; return 1 ;;
    esac
  done
  return 0
}

transient() { # systemd-run: a process that outlives the session, with the manager's bare environment
  unit=
  while [ $# -gt 0 ]; do
    case $1 in --unit=*) unit=${1#*=} ;; -*) ;; *) break ;; esac
    shift
  done
  mkdir "$H/units/$unit.transient" 2>/dev/null || { echo "Failed to start transient service unit: Unit $unit.service was already loaded or has a fragment file." >&2; return 1; }
  note "$unit" "$@"
  setsid sh -c 'u=$1; shift; env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin FLEET_HOST="$FLEET_HOST" "$@"; rmdir "$u"' transient "$H/units/$unit.transient" "$@" </dev/null >/dev/null 2>&1 &
}

elevate() { # sudo -n: there is nobody to be elevated to; what matters is who is refused
  while [ $# -gt 0 ]; do case $1 in -n|--) shift ;; -u) shift 2 ;; *) break ;; esac; done
  exec "$@"
}

case $me in
systemctl) systemctl "$@" ;;
reboot|shutdown) power "$@" ;;
dnf|yum|apt-get|zypper)
  if mutates "$@"; then
    ! locked || busy "$(words "$@" | head -n 1)" "$@"
    note "$@"
  elif locked && [ "$me $(words "$@" | head -n 1)" = "apt-get update" ]; then busy update
  elif locked && [ "$me" = zypper ]; then busy "$@"
  fi
  packages "$@" ;;
dpkg) case " $* " in *" --audit "*|*" -C "*) audit ;; *) echo "dpkg: error: the stand-in only audits" >&2; exit 2 ;; esac ;;
dpkg-query) query '${Package}\t${Version}\n' 'dpkg-query: no packages found matching %s\n' "$@" ;;
rpm) query '%{NAME}-%{VERSION}-1.x86_64\n' 'package %s is not installed\n' "$@" ;;
needs-restarting) needs_restarting ;;
rpm-ostree) ostree "$@" ;;
bootc) bootc "$@" ;;
systemd-run) transient "$@" ;;
sudo) elevate "$@" ;;
journalctl) cat "$H/journal" 2>/dev/null ;;
subscription-manager) note "$@" ;;
uname) note "$@"; command -p uname "$@" ;; # real, but the host remembers having been asked
*) echo "stand-in: unknown command $me" >&2; exit 127 ;;
esac
