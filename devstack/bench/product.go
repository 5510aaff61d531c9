package bench

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale"
	"commissaire/internal/privatepg"
)

// The processes of the product.
const (
	partAPI      = "api"
	partWorker   = "worker"
	partTemporal = "temporal"
	partPostgres = "postgres"
)

var productParts = []string{partAPI, partWorker, partTemporal, partPostgres}

// product is an installation whose parts are processes of their own: API server, one
// worker, Temporal, and a Postgres for both. It has its default settings, but that the
// watcher is off, which would log in to hosts in between, and that the connections of
// the bootstraps are closed early.
type product struct {
	*harness.Installation
	pids  map[string]int
	admin *pgxpool.Pool // to read Postgres' statistics
	stops []func() error
}

// idleTimeout is how long the worker keeps a connection that nobody uses.
const idleTimeout = 5 * time.Second

func openProduct(ctx context.Context, binary, dir, name string) (_ *product, err error) {
	p := &product{pids: map[string]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := os.Mkdir(dir, 0o711); err != nil { // see the folder above
		return nil, err
	}
	pg, err := startPostgres(ctx, filepath.Join(dir, "postgres"))
	if err != nil {
		return nil, err
	}
	p.pids[partPostgres] = pg.PID()
	p.stops = append(p.stops, func() error { return pg.Stop(privatepg.Fast) })
	if p.admin, err = pgxpool.New(ctx, pg.DSN("postgres")); err != nil {
		return nil, err
	}
	p.stops = append(p.stops, func() error { p.admin.Close(); return nil })
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pid, address, stop, err := scale.StartTemporal(ctx, []string{self, RoleTemporal, pg.DSN("postgres")})
	if err != nil {
		return nil, err
	}
	p.pids[partTemporal] = pid
	p.stops = append(p.stops, stop)
	p.Installation, err = harness.New(ctx, harness.Options{
		Dir: dir, Name: name, Binary: binary, Postgres: pg, Temporal: address,
		Env: []string{
			"COMMISSAIRE_HEARTBEAT_TIMEOUT=30s", "COMMISSAIRE_SSH_IDLE_TIMEOUT=" + idleTimeout.String(),
			"COMMISSAIRE_REBOOT_TIMEOUT=10m", "COMMISSAIRE_STEP_TIMEOUT=30m", // the harness has short ones
		},
	})
	if err != nil {
		return nil, err
	}
	p.pids[partAPI] = p.Server.Process.Pid
	p.stops = append(p.stops, func() error { p.Installation.Close(); return nil })
	worker, err := p.Start(partWorker)
	if err != nil {
		return nil, err
	}
	p.pids[partWorker] = worker.Process.Pid
	p.stops = append(p.stops, func() error { harness.Kill(worker); return nil })
	return p, nil
}

// startPostgres starts a server that keeps account of its statements, if it can.
func startPostgres(ctx context.Context, dir string) (*privatepg.Server, error) {
	o := privatepg.Options{Dir: dir, MaxConnections: 200, ExtraSettings: map[string]string{"shared_preload_libraries": "pg_stat_statements"}}
	pg, err := privatepg.Start(ctx, o)
	if err != nil && strings.Contains(err.Error(), "pg_stat_statements") { // some distributions have it apart
		o.ExtraSettings = nil
		pg, err = privatepg.Start(ctx, o)
	}
	return pg, err
}

// close ends the parts, the last one first.
func (p *product) close() error {
	var errs []error
	for i := len(p.stops) - 1; i >= 0; i-- {
		errs = append(errs, p.stops[i]())
	}
	p.stops = nil
	return errors.Join(errs...)
}

// bootstrap puts the hosts into the inventory, as members of the cluster.
func (p *product) bootstrap(ctx context.Context, s site) error {
	if err := p.Call(ctx, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{}); err != nil {
		return err
	}
	for _, h := range s.Hosts {
		err := p.Call(ctx, http.MethodPut, "host/"+h.Address, map[string]any{
			"ssh_priv_key": base64.StdEncoding.EncodeToString([]byte(s.Key)), "remote_user": h.User, "port": h.Port, "cluster": harness.Cluster,
		})
		if err != nil {
			return err
		}
	}
	const limit = 2 * time.Minute
	return harness.Until(ctx, limit, "the hosts to be bootstrapped", func() (bool, error) {
		var open, failed int
		err := p.DB.QueryRow(ctx, `SELECT (SELECT count(*) FROM operation WHERE finished IS NULL), (SELECT count(*) FROM host WHERE state = 'failed')`).Scan(&open, &failed)
		if failed > 0 {
			return false, fmt.Errorf("%d hosts could not be bootstrapped", failed)
		}
		return open == 0, err
	})
}

// commctlConfig is the name of commctl's configuration among the files of the rivals.
const commctlConfig = "commctl.json"

// writeCommctl writes what commctl needs to know.
func (p *product) writeCommctl(file string) error {
	text, err := json.Marshal(map[string]string{"endpoint": p.API, "username": harness.User, "password": harness.Password})
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// used is what each part has used of processors.
func (p *product) used() (map[string]time.Duration, error) {
	used := map[string]time.Duration{}
	for part, pid := range p.pids {
		var err error
		if used[part], _, err = usage(pid); err != nil {
			return nil, fmt.Errorf("%s: %w", part, err)
		}
	}
	return used, nil
}

// order is an operation as its client saw it.
type order struct {
	id                     string
	sent, answered, finish time.Time // finish: when the client was told that it has ended
}

// errNoCommand says that the product under test has no such operation.
var errNoCommand = errors.New("the API has no operation command")

// command orders the command on the cluster's hosts, or only on those given, and waits for
// its end.
func (p *product) command(ctx context.Context, hosts ...string) (o order, err error) {
	body := map[string]any{"argv": remoteCommand}
	if len(hosts) > 0 {
		body["hosts"] = hosts
	}
	o.sent = time.Now()
	r, err := p.Request(ctx, http.MethodPost, "cluster/"+harness.Cluster+"/command", body)
	if err != nil {
		return o, err
	}
	o.answered = time.Now()
	switch r.Code {
	case http.StatusCreated:
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return o, errNoCommand
	default:
		return o, fmt.Errorf("order the command: %d: %s", r.Code, r.Body)
	}
	var answer struct{ ID string }
	if err := json.Unmarshal(r.Body, &answer); err != nil || answer.ID == "" {
		return o, fmt.Errorf("order the command: %s: %w", r.Body, err)
	}
	o.id = answer.ID
	o.finish, err = p.follow(ctx, o.id)
	return o, err
}

// follow reads the operation's own events until it has ended, and gives when it was told.
func (p *product) follow(ctx context.Context, id string) (time.Time, error) {
	// No host has this address, so that only the operation's own events come.
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.API+"/api/v0/operations/"+id+"/events?output=false&host=192.0.2.1", nil)
	if err != nil {
		return time.Time{}, err
	}
	r.SetBasicAuth(harness.User, harness.Password)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return time.Time{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return time.Time{}, fmt.Errorf("events of %s: %s", id, response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	for name := ""; lines.Scan(); {
		if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			name = event
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || name != "operation" && name != "end" {
			continue
		}
		var e struct{ State string }
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return time.Time{}, fmt.Errorf("event %s: %w", data, err)
		}
		if name == "end" || e.State == "succeeded" || e.State == "failed" || e.State == "cancelled" {
			return time.Now(), nil
		}
	}
	return time.Time{}, fmt.Errorf("the events of %s broke off: %w", id, lines.Err())
}

// verify wants the command to have ended well on so many hosts, with its output on record.
func (p *product) verify(ctx context.Context, id, answer string, hosts int) error {
	var state, reason, example string
	var succeeded, answered int
	err := p.DB.QueryRow(ctx, `SELECT o.state, o.reason,
			(SELECT count(*) FROM host_run h WHERE h.operation_id = o.id AND h.state = 'succeeded'),
			(SELECT count(*) FROM step s JOIN output t ON t.step_id = s.id WHERE s.operation_id = o.id AND s.exit_code = 0 AND convert_from(t.data, 'UTF8') = $2),
			coalesce((SELECT min(h.address || ': ' || h.reason) FROM host_run h WHERE h.operation_id = o.id AND h.state <> 'succeeded'), '')
		FROM operation o WHERE o.id = $1::uuid`, id, answer+"\n").Scan(&state, &reason, &succeeded, &answered, &example)
	if err != nil {
		return err
	}
	if state != "succeeded" || succeeded != hosts || answered != hosts {
		return fmt.Errorf("operation %s %s %s: %d hosts succeeded and %d outputs are on record, not %d; %s", id, state, reason, succeeded, answered, hosts, example)
	}
	return nil
}

// statements is what Postgres says of a database's statements.
type statements struct {
	Calls int
	Time  time.Duration // in which they were carried out, waits included
}

// statements are those of every database since the server's start; empty when Postgres
// keeps no account of them.
func (p *product) statements(ctx context.Context) (map[string]statements, error) {
	if _, err := p.admin.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"); err != nil {
		return map[string]statements{}, nil
	}
	rows, err := p.admin.Query(ctx, `SELECT d.datname, sum(s.calls)::bigint, sum(s.total_exec_time)::float8 FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid GROUP BY 1`)
	if err != nil {
		if strings.Contains(err.Error(), "shared_preload_libraries") {
			return map[string]statements{}, nil
		}
		return nil, err
	}
	defer rows.Close()
	all := map[string]statements{}
	for rows.Next() {
		var name string
		var s statements
		var ms float64
		if err := rows.Scan(&name, &s.Calls, &ms); err != nil {
			return nil, err
		}
		s.Time = time.Duration(ms * float64(time.Millisecond))
		all[name] = s
	}
	return all, rows.Err()
}

// costly are the statements that took the most time in the product's database since the
// server's start; none when Postgres keeps no account of them.
func (p *product) costly(ctx context.Context, most int) (lines []string, err error) {
	if all, err := p.statements(ctx); err != nil || len(all) == 0 {
		return nil, err
	}
	rows, err := p.admin.Query(ctx, `SELECT format('calls=%s ms=%s sql=%s', s.calls, round(s.total_exec_time), left(regexp_replace(s.query, '\s+', ' ', 'g'), 120))
		FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1 ORDER BY s.total_exec_time DESC LIMIT $2`, p.DB.Config().ConnConfig.Database, most)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// databaseSize is that of the product's database and of Temporal's, in bytes.
func (p *product) databaseSize(ctx context.Context) (ours, temporal int64, err error) {
	err = p.admin.QueryRow(ctx, `SELECT
			(SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database WHERE datname NOT LIKE 'temporal%' AND datname NOT IN ('postgres', 'template0', 'template1'))::bigint,
			(SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database WHERE datname LIKE 'temporal%')::bigint`).Scan(&ours, &temporal)
	return ours, temporal, err
}

// watchMemory looks at the parts again and again; peak ends that and gives the most that
// all of them held at once, in bytes.
func (p *product) watchMemory(ctx context.Context) (peak func() (int64, error)) {
	const every = 500 * time.Millisecond
	pids := maps.Clone(p.pids)
	ctx, cancel := context.WithCancel(ctx)
	var most int64
	var failed error
	var done sync.WaitGroup
	done.Go(func() {
		for {
			var sum int64
			for _, pid := range pids {
				n, err := memory(pid)
				if err != nil {
					failed = err
					return
				}
				sum += n
			}
			most = max(most, sum)
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
		}
	})
	return func() (int64, error) {
		cancel()
		done.Wait()
		return most, failed
	}
}
