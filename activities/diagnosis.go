package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"commissaire/internal/containermgr"
	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// How much a diagnosis of many nodes may say, since it travels through workflow history.
const (
	maxDiagnosis = 200 << 10 // bytes of JSON
	maxFindings  = 10        // of a host
	maxPods      = 5         // of a finding
	// sayUnknown is left of the time of whoever asks, to say that nobody knows.
	sayUnknown = 2 * time.Second
)

// DiagnoseCluster names what would be in the way of draining hosts of a cluster. It only
// reads, so it may be repeated. A container manager that does not answer is no error: the
// answer is that nobody knows.
func (a *Nodes) DiagnoseCluster(ctx context.Context, in workflows.DiagnosisRef) (workflows.Diagnosis, error) {
	to := a.Store(in.Tenant)
	cluster, err := to.Cluster(ctx, in.Cluster)
	if err != nil {
		return workflows.Diagnosis{}, verdict(ctx, err)
	}
	m, err := to.OpenContainerManager(ctx, cluster.ContainerManager, "")
	if fleet.KindOf(err) == fleet.NotFound {
		return workflows.Diagnosis{Unknown: noManager(cluster.ContainerManager)}, nil
	}
	if err != nil {
		return workflows.Diagnosis{}, verdict(ctx, err)
	}
	nodes, err := to.NodesAmong(ctx, m.Name, in.Addresses)
	if err != nil {
		return workflows.Diagnosis{}, verdict(ctx, err)
	}
	found, err := a.diagnoseMany(ctx, m, in, nodes)
	if err != nil {
		return workflows.Diagnosis{Unknown: blamed(m, err).Error()}, nil
	}
	for _, findings := range found {
		if err := judgeMarks(ctx, to, findings); err != nil {
			return workflows.Diagnosis{}, verdict(ctx, err)
		}
	}
	for _, address := range in.Addresses {
		if !slices.Contains(nodes, address) {
			found[address] = []fleet.Finding{notHeld(address, m.Name)}
		}
	}
	return workflows.Diagnosis{Hosts: brief(in.Addresses, found)}, nil
}

func (a *Nodes) diagnoseMany(ctx context.Context, m fleet.ContainerManager, in workflows.DiagnosisRef, nodes []string) (map[string][]fleet.Finding, error) {
	k, release, err := a.clients.get(ctx, in.Tenant, m)
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, workflows.DiagnoseLimit-sayUnknown)
	defer cancel()
	return k.DiagnoseMany(ctx, nodes, in.Policy)
}

// noManager is what is in the way in a cluster that names a container manager which is not
// there: deleted, or a slip of the pen.
func noManager(name string) string {
	return fmt.Sprintf("container manager %s of the cluster does not exist, so nobody can empty its nodes; create it, change the cluster, or leave nodes alone (drain.disabled, --no-drain)", name)
}

// notHeld is what is in the way of draining a host that is to be a node and is none, as
// far as the record has it: its register failed, or its container manager is new.
func notHeld(address, manager string) fleet.Finding {
	return fleet.Finding{
		Cause: containermgr.NodeMissing, Object: "node " + address, Blocks: true,
		Detail: fmt.Sprintf("is not registered with container manager %s; bootstrap its host, or leave the node alone (drain.disabled, --no-drain)", manager),
	}
}

// judgeMarks asks the record about marks of others on nodes. One whose host run has ended
// goes when the sweep takes it away, or never. The record of another Commissaire is not
// ours to read, and its marks are waited for.
func judgeMarks(ctx context.Context, to CordonStore, findings []fleet.Finding) error {
	for i := range findings {
		f := &findings[i]
		id, address, _ := strings.Cut(f.Owner, "/")
		if address == "" {
			continue
		}
		state, ended, err := to.CordonOf(ctx, id, address)
		switch {
		case fleet.KindOf(err) == fleet.NotFound:
		case err != nil:
			return err
		case ended && state.Stands():
			f.Detail = fmt.Sprintf("is still cordoned for operation %s, which has ended; it is tried again until that works", id)
		case ended:
			f.Passes = false
			f.Detail = fmt.Sprintf("bears the mark of operation %s, which has ended and does not take it away any more; remove the annotation %s, and uncordon the node unless its \"prior\" is true", id, containermgr.CordonAnnotation)
		}
	}
	return nil
}

// brief keeps what fits. The first finding of every host, which is the worst, comes
// before the second of any.
func brief(addresses []string, found map[string][]fleet.Finding) map[string]fleet.HostDiagnosis {
	hosts, left := map[string]fleet.HostDiagnosis{}, maxDiagnosis
	for _, address := range addresses {
		if n := len(found[address]); n > 0 {
			hosts[address] = fleet.HostDiagnosis{More: n}
			left -= len(address) + len(`"":{"findings":[],"more":100},`)
		}
	}
	for n := range maxFindings {
		for _, address := range addresses {
			if n >= len(found[address]) {
				continue
			}
			f := found[address][n]
			if more := len(f.Pods) - maxPods; more > 0 {
				f.Pods = f.Pods[:maxPods]
				f.Detail += fmt.Sprintf(" (and %d more pods)", more)
			}
			text, err := json.Marshal(f)
			h := hosts[address]
			if left -= len(text) + 1; err != nil || left < 0 || len(h.Findings) < n {
				continue
			}
			h.Findings, h.More = append(h.Findings, f), h.More-1
			hosts[address] = h
		}
	}
	return hosts
}
