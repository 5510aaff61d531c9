# Run inside a copy of the base, whose files are links to those of the base: they are
# removed and written anew, never changed. Makes it a tree as OSTree wants one: /usr
# and nothing else, with the defaults of /etc in it.
mv etc usr/etc
rm -rf var root home srv opt mnt media boot usr/local dev run proc sys tmp
mkdir -m 755 var sysroot boot dev run proc sys tmp
ln -s sysroot/ostree ostree
for d in root:roothome home srv opt mnt usr/local:usrlocal; do
	to=var/${d#*:}
	case $d in usr/*) to=../$to ;; esac
	ln -s "$to" "${d%:*}"
done
cat > usr/lib/tmpfiles.d/nspawntest.conf <<'EOF'
d /var/roothome 0700 root root -
d /var/home 0755 root root -
d /var/usrlocal 0755 root root -
d /var/lib 0755 root root -
EOF
rm -f usr/etc/machine-id usr/etc/os-release
: > usr/etc/machine-id
ln -s ../usr/lib/os-release usr/etc/os-release

# A kernel is part of the tree; nothing runs this one.
kernel=usr/lib/modules/6.12.0-nspawntest
mkdir -p "$kernel"
echo kernel > "$kernel/vmlinuz"
echo initramfs > "$kernel/initramfs.img"

# What Debian has in ostree-boot, which needs dracut: a staged deployment becomes the
# next to boot when the machine goes down in order, and only then.
cat > usr/lib/systemd/system/ostree-finalize-staged.path <<'EOF'
[Path]
PathExists=/run/ostree/staged-deployment
EOF
cat > usr/lib/systemd/system/ostree-finalize-staged.service <<'EOF'
[Unit]
ConditionPathExists=/run/ostree-booted
DefaultDependencies=no
RequiresMountsFor=/sysroot /boot
After=local-fs.target systemd-journal-flush.service
Before=basic.target final.target
Conflicts=final.target
[Service]
Type=oneshot
RemainAfterExit=yes
Environment=OSTREE_SYSROOT_DEBUG=mutable-deployments
ExecStop=/usr/bin/ostree admin finalize-staged
TimeoutStopSec=1min
EOF
mkdir -p usr/lib/systemd/system/multi-user.target.wants
ln -s ../ostree-finalize-staged.path usr/lib/systemd/system/multi-user.target.wants/
rm -f usr/bin/apt-get usr/bin/dnf usr/bin/dnf-3
