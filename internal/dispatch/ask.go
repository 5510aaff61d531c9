package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// Workers alone speak with container managers. What the API wants to know of one it
// asks by a short workflow, whose end it waits for.

// How long such a workflow may take with all around it. In a fresh namespace a worker
// needs a second for its first task.
const (
	checkLimit = workflows.AskLimit + 3*time.Second
	readLimit  = 7 * time.Second
	// diagnoseLimit is for somebody who waits for a dry run.
	diagnoseLimit = workflows.DiagnoseLimit + 5*time.Second
)

// CheckManager asks whether a container manager that was put will do. The error says
// why not; it is fleet.Unavailable when nobody knows.
func (d *Dispatcher) CheckManager(ctx context.Context, tenant, name, check string) error {
	ref := workflows.ManagerRef{Tenant: tenant, Name: name, Check: check}
	var said workflows.ManagerVerdict
	err := d.ask(ctx, checkLimit, workflows.CheckWorkflowID(ref), "check container manager "+name, &said, workflows.CheckManager, ref)
	if err == nil && said.Kind != "" {
		return &fleet.Error{Kind: said.Kind, Detail: said.Detail, Fields: said.Fields}
	}
	return err
}

// ReadNode asks the container manager of a host's cluster how its node is, and returns
// when that is in the store. Those who ask at the same time share the question.
func (d *Dispatcher) ReadNode(ctx context.Context, tenant, address string) error {
	ref := workflows.NodeRef{Tenant: tenant, Address: address}
	return d.ask(ctx, readLimit, workflows.NodeWorkflowID(ref), "status of "+address, nil, workflows.ReadNode, ref)
}

// Diagnose asks the container manager of a cluster what would be in the way of draining
// hosts. unknown says why nobody knows, "" when it is known: a dry run is of use also
// without it. The error is that of ctx.
func (d *Dispatcher) Diagnose(ctx context.Context, tenant, cluster string, addresses []string, drain fleet.Drain) (found map[string]fleet.HostDiagnosis, unknown string, err error) {
	ref := workflows.DiagnosisRef{Tenant: tenant, Cluster: cluster, Addresses: addresses, Policy: drain}
	var said workflows.Diagnosis
	err = d.ask(ctx, diagnoseLimit, workflows.DiagnosisWorkflowID(ref), "diagnose cluster "+cluster, &said, workflows.DiagnoseCluster, ref)
	var why *fleet.Error
	switch {
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	case errors.As(err, &why):
		return nil, why.Detail, nil
	}
	return said.Hosts, said.Unknown, err
}

func (d *Dispatcher) ask(ctx context.Context, limit time.Duration, id, summary string, answer any, flow, input any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	run, err := d.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       id,
		TaskQueue:                d.options.TaskQueue,
		WorkflowExecutionTimeout: limit,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            summary,
	}, flow, input)
	if err == nil {
		err = run.Get(ctx, answer)
	}
	if err != nil {
		return &fleet.Error{Kind: fleet.Unavailable, Detail: fmt.Sprintf("no worker answered within %s, so nobody knows; is one running?", limit), Err: err}
	}
	return nil
}
