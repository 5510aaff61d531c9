// Package containermgr speaks with the Kubernetes (or OpenShift) cluster whose
// nodes our hosts are: it registers and removes nodes, says how they are, and takes
// one out of service for a while: cordon, evict, restore.
//
// The node of a host bears the host's address as its name. An address that cannot be
// one (of IPv6, or with '_') cannot be registered; otherwise it is that of a node that
// is not there.
//
// Everything here is one short step that may be repeated: a step reads what is
// there, does what is missing and returns. What must outlive a crash (who cordoned
// the node, and what it was before) is written on the node itself, in one write
// with the cordon; which pods have been evicted is known from the pods. So a drain
// is a caller that repeats [Kubernetes.Evict] until it is done or late, and the
// caller may be another process each time.
//
// Errors are *fleet.Error: Invalid when somebody must change the configuration or
// the rights (trying again cannot help), NotFound when the node is not there,
// Conflict when somebody else is at it, Unavailable when trying again may help;
// [RetryAfter] says when. A context's own end is wrapped in one.
package containermgr
