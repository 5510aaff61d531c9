// Package cloudinit proves that the output of `commctl user-data` works in the
// real cloud-init of Debian: machines with systemd boot with it, add themselves
// to a running installation, and are bootstrapped and restarted by it.
//
// It needs root and systemd-nspawn, as package nspawntest does, and says so where
// they are missing. The first run ever builds a Debian tree with cloud-init.
package cloudinit
