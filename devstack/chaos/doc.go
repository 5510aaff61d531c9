// Package chaos proves that nothing is lost when a worker dies: it kills a
// worker with SIGKILL at every point of every step of bootstrap and restart,
// and compares what the record says with what the hosts say happened to them,
// and with how the workflows ended.
//
// At some points the worker is not killed but stopped, until Temporal has taken
// it for lost and another worker has its step. Then it goes on where it was: a
// zombie, that must do no harm.
//
// The points are taken from the histories of a clean run, so a new step joins
// by itself. Each is tried alone: a worker that kills itself there (a build
// with the tag chaos), then an ordinary one that must bring the operation to
// its right end. The hosts are real sshd; their ledgers are kept by the hosts.
package chaos
