package scale

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	"commissaire/devstack/harness"
	"commissaire/devstack/scale/simhost"
	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

// Register puts the hosts into the inventory as members of the cluster, in the
// state in which a bootstrap leaves a host. Their credentials are sealed with the
// installation's key.
func Register(ctx context.Context, l *harness.Installation, simulated *simhost.Fleet) error {
	if err := l.Call(ctx, http.MethodPut, "cluster/"+harness.Cluster, map[string]any{}); err != nil {
		return err
	}
	sealer, err := secret.OpenKeyFile(filepath.Join(l.Dir, "seal.key"))
	if err != nil {
		return err
	}
	hosts, key := simulated.Hosts(), secret.NewText([]byte(simulated.ClientKey()))
	return pgx.BeginFunc(ctx, l.DB, func(tx pgx.Tx) error {
		now := time.Now()
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"host"}, []string{
			"tenant", "address", "port", "cluster", "join_order", "state", "os", "os_version", "package_manager", "cpus", "memory", "space", "boot_id",
			"last_check", "host_key", "host_key_print", "host_key_pinned", "bootstrapped",
		}, pgx.CopyFromSlice(len(hosts), func(i int) ([]any, error) {
			h := hosts[i]
			print, err := fingerprint(h)
			if err != nil {
				return nil, err
			}
			f, err := h.Facts()
			return []any{
				fleet.DefaultTenant, h.Address(), simhost.Port, harness.Cluster, i + 1, string(fleet.HostDisassociated),
				f.OS, f.OSVersion, f.PackageManager, f.CPUs, f.Memory, f.Space, f.BootID, now, h.HostKey(), print, now, now,
			}, err
		}))
		if err != nil {
			return fmt.Errorf("register the hosts: %w", err)
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"host_creds"}, []string{"tenant", "address", "remote_user", "sealed", "key_id"},
			pgx.CopyFromSlice(len(hosts), func(i int) ([]any, error) {
				sealed, err := sealer.Seal(key, secret.Row(fleet.DefaultTenant, "host_creds", hosts[i].Address()))
				return []any{fleet.DefaultTenant, hosts[i].Address(), "root", sealed, int64(sealer.PrimaryKeyID())}, err
			}))
		if err != nil {
			return fmt.Errorf("register the credentials: %w", err)
		}
		return nil
	})
}

func fingerprint(h *simhost.Host) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey()))
	if err != nil {
		return "", err
	}
	return ssh.FingerprintSHA256(key), nil
}
