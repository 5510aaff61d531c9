# Run inside the fresh tree. What must differ between machines goes: host keys,
# machine id. What would reach for a network that is not there goes as well: name
# servers (each look-up would take seconds to fail) and package sources.
rm -f /etc/ssh/ssh_host_* /etc/apt/sources.list
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
: > /etc/machine-id
: > /etc/resolv.conf
sed -i 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf
systemctl enable ssh systemd-networkd
systemctl mask console-getty.service apt-daily.timer apt-daily-upgrade.timer

# root and two more users log in with the one key of the fleet.
useradd -m -u 1000 -s /bin/bash ops
useradd -m -u 1001 -s /bin/bash nosudo
echo 'ops ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops
chmod 440 /etc/sudoers.d/ops
echo 'AuthorizedKeysFile /etc/ssh/authorized_keys' > /etc/ssh/sshd_config.d/nspawntest.conf
