// Package remotetest runs real OpenSSH servers as test and demo hosts, without
// root, namespaces or containers.
//
// A [Fleet] is a folder of hosts. Every [Host] is one sshd on a loopback
// address of its own, with its own host key, boot id, package versions and
// OSTree deployments. Commands that would change a machine (systemctl, dnf,
// apt-get, rpm-ostree …) are stand-ins, first in the host's PATH, which really
// change the state in the host's folder and append one line to its ledger. The
// ledger is the host's own account of what happened to it, so a test can compare
// what the product believes with what it did.
//
// A reboot is as real as it gets here: sshd and every process of the host are
// killed, the port is closed for a while, and sshd comes back with a new boot id.
//
// The package knows nothing of package remote, so that its tests can use it.
package remotetest
