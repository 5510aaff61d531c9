package histories

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"commissaire/devstack/harness"
	"commissaire/internal/fleet"
	"commissaire/internal/kubetest"
	"commissaire/internal/remote/remotetest"
	"commissaire/workflows"
)

// limit bounds each wait: far more than it needs, since the machine may be busy.
const limit = 90 * time.Second

// recorder is an installation as one story sees it. After the first failure its
// methods do nothing, and err says what it was.
type recorder struct {
	*harness.Installation
	ctx     context.Context
	cluster string
	hosts   []*remotetest.Host
	kube    *kubetest.Cluster // nothing but stories of nodes use it
	out     string
	say     io.Writer
	err     error
}

func (r *recorder) try(f func() error) {
	if r.err == nil {
		r.err = f()
	}
}

func (r *recorder) until(what string, check func() (bool, error)) {
	r.try(func() error { return harness.Until(r.ctx, limit, what, check) })
}

func (r *recorder) call(method, path string, body any) {
	r.try(func() error { return r.Call(r.ctx, method, path, body) })
}

func (r *recorder) makeCluster() { r.call(http.MethodPut, "cluster/"+r.cluster, map[string]any{}) }

func (r *recorder) add(h *remotetest.Host) {
	body := r.HostBody(h)
	body["cluster"] = r.cluster
	r.call(http.MethodPut, "host/"+url.PathEscape(h.Address()), body)
}

// bootstrap makes the cluster with all hosts of the story.
func (r *recorder) bootstrap() {
	r.makeCluster()
	for _, h := range r.hosts {
		r.add(h)
	}
	for _, h := range r.hosts {
		r.ends(ofHost(h), "succeeded")
	}
}

// order begins an operation on the cluster; nil is no policy.
func (r *recorder) order(kind string, policy map[string]any) {
	body := map[string]any{}
	if policy != nil {
		body["policy"] = policy
	}
	r.call(http.MethodPut, "cluster/"+r.cluster+"/"+kind, body)
}

// Filters of the list of operations; the latest one is meant.
func (r *recorder) ofCluster() string  { return "cluster=" + r.cluster }
func ofHost(h *remotetest.Host) string { return "kind=bootstrap&host=" + url.QueryEscape(h.Address()) }

type operation struct {
	ID, State, Reason, Waiting string
	Progress                   struct{ Running int }
}

// operation reads the latest operation that fits a filter.
func (r *recorder) operation(filter string) (op operation, err error) {
	list, err := r.Request(r.ctx, http.MethodGet, "operations?limit=1&"+filter, nil)
	if err != nil {
		return op, err
	}
	var page struct{ Operations []operation }
	if err := json.Unmarshal(list.Body, &page); err != nil || len(page.Operations) != 1 {
		return op, fmt.Errorf("no operation with %s: %s", filter, list.Body)
	}
	one, err := r.Request(r.ctx, http.MethodGet, "operations/"+page.Operations[0].ID, nil)
	if err != nil {
		return op, err
	}
	return op, json.Unmarshal(one.Body, &op)
}

func (r *recorder) ends(filter, state string) {
	r.until("the operation to end as "+state, func() (bool, error) {
		op, err := r.operation(filter)
		if err == nil && op.State != state && op.State != "pending" && op.State != "running" {
			err = fmt.Errorf("the operation ended as %s: %s", op.State, op.Reason)
		}
		return op.State == state, err
	})
}

// waits waits until nobody is at work and the operation says what it waits for.
func (r *recorder) waits() {
	r.until("the operation to wait", func() (bool, error) {
		op, err := r.operation(r.ofCluster())
		return op.Waiting != "" && op.Progress.Running == 0, err
	})
}

func (r *recorder) rebooting(h *remotetest.Host) {
	r.until("the host to be told to reboot", func() (bool, error) { return h.Count("systemctl", "reboot") > 0, nil })
}

func (r *recorder) steer(what string, body map[string]any) {
	r.try(func() error {
		op, err := r.operation(r.ofCluster())
		if err != nil {
			return err
		}
		return r.Call(r.ctx, http.MethodPost, "operations/"+op.ID+"/"+what, body)
	})
}

// The ids of workflows.
func (r *recorder) rollout() string {
	return workflows.ClusterWorkflowID(fleet.DefaultTenant, r.cluster)
}
func (r *recorder) slot(n int) string { return r.rollout() + "/" + r.hosts[n].Address() }
func hostID(h *remotetest.Host) string {
	return workflows.HostWorkflowID(fleet.DefaultTenant, h.Address())
}

// write writes the histories of the latest runs of a workflow, under as many
// names, the oldest first. An id may end in "*".
func (r *recorder) write(id string, names ...string) {
	var runs []*workflowpb.WorkflowExecutionInfo
	r.until("the end of workflow "+id, func() (bool, error) {
		query := fmt.Sprintf("WorkflowId = %q", id)
		if prefix, ok := strings.CutSuffix(id, "*"); ok {
			query = fmt.Sprintf("WorkflowId STARTS_WITH %q", prefix)
		}
		list, err := r.Temporal.ListWorkflow(r.ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil || len(list.Executions) < len(names) {
			return false, err
		}
		runs = list.Executions
		slices.SortFunc(runs, func(a, b *workflowpb.WorkflowExecutionInfo) int {
			return a.StartTime.AsTime().Compare(b.StartTime.AsTime())
		})
		runs = runs[len(runs)-len(names):]
		return !slices.ContainsFunc(runs, func(run *workflowpb.WorkflowExecutionInfo) bool {
			return run.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
		}), nil
	})
	for i, name := range names {
		r.try(func() error { return r.writeRun(runs[i], name) })
	}
}

func (r *recorder) writeRun(run *workflowpb.WorkflowExecutionInfo, name string) error {
	var lines [][]byte
	events := r.Temporal.GetWorkflowHistory(r.ctx, run.Execution.WorkflowId, run.Execution.RunId, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return err
		}
		line, err := readable(event)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	text := fmt.Appendf(nil, "{\"events\": [\n%s\n]}\n", bytes.Join(lines, []byte(",\n")))
	if err := os.WriteFile(filepath.Join(r.out, name+".json"), text, 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.say, "%-28s %3d events, %s\n", name, len(lines), run.Status)
	return err
}

// readable is an event as one line of JSON, without what tells of the machine
// that recorded it.
func readable(event *historypb.HistoryEvent) ([]byte, error) {
	text, err := protojson.Marshal(event)
	if err != nil {
		return nil, err
	}
	var members map[string]any
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, err
	}
	scrub(members)
	return json.Marshal(members)
}

func scrub(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "stackTrace")
		if _, ok := v["identity"]; ok {
			v["identity"] = "worker"
		}
		for _, member := range v {
			scrub(member)
		}
	case []any:
		for _, member := range v {
			scrub(member)
		}
	}
}
