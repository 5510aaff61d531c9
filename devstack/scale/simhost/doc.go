// Package simhost runs thousands of SSH hosts in this process, to see how the
// product behaves on a fleet that no test machine could hold.
//
// Every [Host] is an SSH server on a loopback address of its own with its own
// host key. It has no shell: it recognises the scripts of internal/remote and
// internal/hostos and answers them from memory, once-only runs included. A
// script that it does not know is answered with an error and kept for
// [Fleet.Unknown], and a test makes the same calls to a simulated host and to a
// real sshd and compares the results, so the simulation cannot drift from the
// scripts unnoticed.
//
// A reboot closes the host's port and connections for a while; then the host
// answers with another boot id. Each host keeps when it was down.
package simhost
