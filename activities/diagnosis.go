package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

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
	if err != nil {
		return workflows.Diagnosis{}, verdict(ctx, err)
	}
	found, err := a.diagnoseMany(ctx, m, in)
	if err != nil {
		return workflows.Diagnosis{Unknown: blamed(m, err).Error()}, nil
	}
	return workflows.Diagnosis{Hosts: brief(in.Addresses, found)}, nil
}

func (a *Nodes) diagnoseMany(ctx context.Context, m fleet.ContainerManager, in workflows.DiagnosisRef) (map[string][]fleet.Finding, error) {
	k, release, err := a.clients.get(ctx, in.Tenant, m)
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, workflows.DiagnoseLimit-sayUnknown)
	defer cancel()
	return k.DiagnoseMany(ctx, in.Addresses, in.Policy)
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
