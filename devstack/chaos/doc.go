// Package chaos proves that nothing is lost when a part of the product dies: it
// does harm at the points of bootstrap, restart, upgrade, deploy and command, and compares
// what the record says with what the hosts say happened to them, and with how the
// workflows ended.
//
// The points are taken from the histories of a clean run, so a new step joins by
// itself. Each is tried alone, with an operation of its own:
//
//   - A worker is killed with SIGKILL before an activity's code, after its effect,
//     after its report, or at a workflow task, and an ordinary one must bring the
//     operation to its right end. This is tried at each occurrence of an activity,
//     so on each host, and at every fourth workflow task.
//   - At one occurrence of each activity in each kind of operation: a worker is
//     killed while the activity runs; it is stopped until another one has the
//     activity, and then goes on, a zombie that must do no harm; the activity is
//     carried out twice; its effect happens and Temporal is told that it failed; the
//     API is killed before it, after its effect and after its report, and another
//     one must know what goes on and take orders meanwhile.
//
// A command is tried in three ways: it comes to its end, somebody cancels it, and somebody
// cancels it with force. One step runs it on many hosts, so there are points within that
// step, too, at which it is held from outside: see moments. Its hosts are reached through
// a bastion.
//
// The harm is done by a build of the product with the tag chaos. The hosts are
// real sshd; their ledgers are kept by the hosts. Rollouts go over three hosts, two
// at a time, so that there are slots to be lost; the hosts of an upgrade are of
// three sorts.
//
// Nodes is another sort of run: rollouts over clusters whose hosts are nodes of a
// Kubernetes, which all lanes share. What happens, and when, is drawn from a seed: a
// worker at any point of the above, a killed or stopped worker, a killed API, an
// apiserver that restarts; and beside it an operator who cancels, pauses, deletes the
// cluster or a host, or terminates the workflow. The nodes must be as before soon after
// the end of the operations, and afterwards every change that the apiserver saw is
// judged: budgets of pods and of rollouts, and what belongs to others.
package chaos
