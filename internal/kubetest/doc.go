// Package kubetest runs a real Kubernetes control plane for tests: etcd,
// kube-apiserver, kube-controller-manager and kube-scheduler, with KWOK in the
// place of kubelets. Nodes and pods are objects that come alive (a node becomes
// Ready, a pod Running, an evicted pod goes) without a machine behind them; what
// decides over them, such as the Eviction API and disruption budgets, is the real
// thing.
//
//	c := kubetest.Shared(t)  // one for all tests of the process; they keep apart by namespaces and node names
//	c := kubetest.New(t)     // a whole one, for tests that stop parts of it
//
// A start takes 4 s or so and 0.5 GB of memory. Everything listens on a loopback
// address of the control plane's own, 127.x.y.z, so that many of them fit on one
// machine, and has certificates of an authority of its own.
//
// The programs are built from Go modules into a folder of the user's cache: run
// make build-kube once, which takes about 13 minutes of CPU time and 3 GB of the
// build cache when cold. kubestack/go.mod pins them. Where they are missing, tests
// are skipped and say so, or fail with COMMISSAIRE_KUBE=require. Linux only.
//
// All processes die with the one that started them, also when that is killed; a
// watching shell then removes their folder.
package kubetest
