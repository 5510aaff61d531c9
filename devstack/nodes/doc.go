// Package nodes plays what a test needs around a real Kubernetes control plane, and
// watches what happens to it from the apiserver's side: kubelets of hosts that reboot,
// applications with disruption budgets, and a record of every change of nodes, pods
// and budgets, in the order in which they happened, that is judged afterwards.
package nodes
