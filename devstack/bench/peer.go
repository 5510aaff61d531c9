package bench

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	apiclient "commissaire/api/client"
	"commissaire/internal/fleet"
)

// The statements of the API's reads, as the store sends them.
const (
	hostsSQL = `SELECT h.address, h.port, coalesce(h.cluster, ''), h.state, h.reason, h.state_since, coalesce(h.state_operation::text, ''),
			h.os, h.os_version, h.ostree, h.bootc, h.package_manager, h.cpus, h.memory, h.space, h.boot_id, h.last_check, h.labels, h.source,
			coalesce(h.host_key, ''), coalesce(h.host_key_print, ''), h.host_key_pinned, h.bootstrapped, h.created
		FROM host h WHERE h.tenant = 'default'`

	operationsSQL = `SELECT o.id, o.tenant, o.kind, coalesce(o.cluster, ''), coalesce(o.host, ''), o.state, o.reason,
			o.version, coalesce(o.retry_of::text, ''), o.hosts, o.requested_by, o.request_id, o.created, o.started, o.finished,
			coalesce(p.policy, '{}'), p.paused, coalesce(p.paused_by, ''), p.approved, coalesce(p.approved_by, ''),
			p.cancelled, coalesce(p.cancelled_by, ''), coalesce(p.waiting, '')
		FROM operation o LEFT JOIN rollout p ON p.operation_id = o.id
		WHERE o.tenant = 'default' ORDER BY o.id DESC LIMIT 51`
)

// ServePeer serves the bare handlers until ctx ends.
func ServePeer(ctx context.Context, address, dsn string) error {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v0/hosts", func(w http.ResponseWriter, r *http.Request) {
		rows, _ := pool.Query(r.Context(), hostsSQL+" ORDER BY h.address")
		answer(w, func() (any, error) { return pgx.CollectRows(rows, scanHost) })
	})
	mux.HandleFunc("GET /api/v0/host/{address}", func(w http.ResponseWriter, r *http.Request) {
		rows, _ := pool.Query(r.Context(), hostsSQL+" AND h.address = $1", r.PathValue("address"))
		answer(w, func() (any, error) { return pgx.CollectExactlyOneRow(rows, scanHost) })
	})
	mux.HandleFunc("GET /api/v0/operations", func(w http.ResponseWriter, r *http.Request) {
		rows, _ := pool.Query(r.Context(), operationsSQL)
		answer(w, func() (any, error) {
			all, err := pgx.CollectRows(rows, scanOperation)
			return apiclient.OperationPage{Operations: all[:min(50, len(all))], Next: "more"}, err
		})
	})
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopped()
	return server.ListenAndServe()
}

func answer(w http.ResponseWriter, get func() (any, error)) {
	value, err := get()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // a client that goes away is its own affair
}

func scanHost(row pgx.CollectableRow) (h apiclient.Host, err error) {
	var key, operation string
	var since, check, pinned, bootstrapped, created pgtype.Timestamptz
	err = row.Scan(&h.Address, &h.Port, &h.Cluster, &h.Status, &h.Reason, &since, &operation,
		&h.Os, &h.OsVersion, &h.Ostree, &h.Bootc, &h.PackageManager, &h.Cpus, &h.Memory, &h.Space, &h.BootId, &check, &h.Labels, &h.Source,
		&key, &h.HostKeyFingerprint, &pinned, &bootstrapped, &created)
	h.LastCheck = fleet.FormatTime(check.Time.UTC())
	if h.Port == fleet.DefaultPort {
		h.Port = 0
	}
	return h, err
}

func scanOperation(row pgx.CollectableRow) (o apiclient.Operation, err error) {
	var tenant string
	var hosts int
	var created, started, finished, paused, approved, cancelled pgtype.Timestamptz
	var policy fleet.Policy
	err = row.Scan(&o.Id, &tenant, &o.Kind, &o.Cluster, &o.Host, &o.State, &o.Reason,
		&o.Version, &o.RetryOf, &hosts, &o.RequestedBy, &o.RequestId, &created, &started, &finished,
		&policy, &paused, &o.PausedBy, &approved, &o.ApprovedBy, &cancelled, &o.CancelRequestedBy, &o.Waiting)
	o.Policy = &policy
	o.CreatedAt, o.StartedAt, o.FinishedAt = fleet.FormatTime(created.Time.UTC()), fleet.FormatTime(started.Time.UTC()), fleet.FormatTime(finished.Time.UTC())
	return o, err
}
