package histories

import (
	"net/http"

	"commissaire/internal/fleet"
	"commissaire/workflows"
)

// commands end well, fail, are cancelled before their second host, and are stopped on
// their hosts.
func commands(r *recorder) {
	r.bootstrap()
	r.runs("succeeded", "true", nil, "Command-finished")
	r.runs("failed", "exit 3", nil, "Command-failed")
	r.runs("cancelled", "sleep 2", map[string]any{}, "Command-cancelled")
	r.runs("cancelled", "exec sleep 60", map[string]any{"force": true}, "Command-stopped")
}

// continued is a command that has its second host in a fresh history.
func continued(r *recorder) {
	r.bootstrap()
	r.runs("succeeded", "true", nil, "Command-long", "Command-continued")
}

// runs gives a command, one host after the other, and cancels it when it runs unless cancel is
// nil. names are those of its histories.
func (r *recorder) runs(state, script string, cancel map[string]any, names ...string) {
	r.call(http.MethodPost, "cluster/"+r.cluster+"/command", map[string]any{"argv": []string{"sh", "-c", script}, "at_once": 1})
	op, err := r.operation("kind=command")
	r.try(func() error { return err })
	if cancel != nil {
		r.until("the command to run on a host", func() (bool, error) {
			var n int
			err := r.DB.QueryRow(r.ctx, "SELECT count(*) FROM host_run WHERE operation_id = $1 AND state = 'running'", op.ID).Scan(&n)
			return n > 0, err
		})
		r.call(http.MethodPost, "operations/"+op.ID+"/cancel", cancel)
	}
	r.ends("kind=command", state)
	r.write(workflows.CommandWorkflowID(fleet.DefaultTenant, op.ID), names...)
}
