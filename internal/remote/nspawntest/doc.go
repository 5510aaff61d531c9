// Package nspawntest runs real machines for tests: systemd as process 1, sshd,
// an IP address of their own, a `systemctl reboot` that really reboots and gives
// a new boot id. They are systemd-nspawn containers over one Debian tree, so
// they need root and the packages that scripts/setup-nspawn installs; where
// those are missing, [Start] skips the test and says why.
//
// The machines of one [Machines] share a network namespace that nothing else can
// reach. A test reaches them with [Machines.Dial], or with [Machines.Forward] where
// the code under test makes its own connections; a whole process is started inside
// with [Machines.Command]. Packages for them come from a [Machines.Repository].
//
// What a container cannot give: the kernel, its uptime and its messages are
// those of the machine that runs the test. A reboot shows in the boot id only.
//
// Everything a machine makes belongs to a process: its mounts and links live in
// namespaces that die with it, and it dies with the test. Only empty control
// groups and a folder of files can outlive a killed test; the next [Open]
// removes them.
package nspawntest
