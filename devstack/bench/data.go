package bench

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"commissaire/migrations"
)

// The sizes of the installation. Each operation has hostsPerOperation hosts with
// stepsPerHost steps.
const (
	hosts             = 10_000
	hostsPerOperation = 100
	stepsPerHost      = 5
)

// fill puts the hosts and a number of steps on record, with clusters of 500 hosts
// and an ended restart for every 500 steps.
func fill(ctx context.Context, dsn string, steps int) error {
	if err := migrations.Up(ctx, dsn); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	operations := steps / (hostsPerOperation * stepsPerHost)
	for _, sql := range []string{
		`INSERT INTO cluster (tenant, name, network) SELECT 'default', 'c' || i, 'default' FROM generate_series(1, 20) i`,
		fmt.Sprintf(`INSERT INTO host (tenant, address, cluster, join_order, state, os, os_version, package_manager, cpus, memory, space, boot_id, last_check, labels,
				host_key, host_key_print, host_key_pinned, bootstrapped)
			SELECT 'default', '10.' || i / 62500 || '.' || i / 250 %% 250 || '.' || i %% 250 + 1, 'c' || i / 500 + 1, i, 'active', 'fedora', '43', 'dnf', 8, 32000, 512110190592,
				gen_random_uuid(), now(), '{"env": "prod"}', 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti',
				'SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU', now(), now() FROM generate_series(0, %d) i`, hosts-1),
		fmt.Sprintf(`INSERT INTO operation (id, tenant, kind, cluster, state, requested_by, request_id, created, started, finished)
			SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'default', 'restart', 'c' || i %% 20 + 1, 'succeeded', 'alice', gen_random_uuid(),
				now(), now(), now() FROM generate_series(1, %d) i`, operations),
		fmt.Sprintf(`INSERT INTO host_run (operation_id, tenant, address, position, state, started, finished)
			SELECT id, 'default', 'h' || p, p, 'succeeded', now(), now() FROM operation, generate_series(1, %d) p`, hostsPerOperation),
		fmt.Sprintf(`INSERT INTO step (operation_id, tenant, address, name, attempt, state, exit_code, finished)
			SELECT operation_id, tenant, address, 'step' || s, 1, 'succeeded', 0, now() FROM host_run, generate_series(1, %d) s`, stepsPerHost),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("fill the database: %w", err)
		}
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE")
	return err
}
