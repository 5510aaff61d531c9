package store

import (
	"context"
	"encoding/json"
	"reflect"
	"regexp"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
	"commissaire/internal/secret"
)

const (
	containerManagersSQL = `SELECT name FROM container_manager WHERE tenant = $1 ORDER BY name`

	containerManagerSQL = `SELECT name, type, options FROM container_manager WHERE tenant = $1 AND name = $2`

	insertContainerManagerSQL = `INSERT INTO container_manager (tenant, name, type, options, sealed, key_id) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT ON CONSTRAINT container_manager_pk DO NOTHING RETURNING name, type, options`

	sealedContainerManagerSQL = `SELECT name, type, options, sealed FROM container_manager WHERE tenant = $1 AND name = $2`

	// Registering waits for the lock and then finds no manager, so no node comes after
	// those that are locked.
	claimContainerManagerSQL = `SELECT FROM container_manager WHERE tenant = $1 AND name = $2 FOR UPDATE`

	claimNodesOfManagerSQL = `SELECT FROM node WHERE tenant = $1 AND manager = $2 ORDER BY address FOR UPDATE`

	deleteContainerManagerSQL = `DELETE FROM container_manager WHERE tenant = $1 AND name = $2`
)

// ContainerManagers lists the names, sorted.
func (s *Store) ContainerManagers(ctx context.Context) (names []string, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		names, err = collect(ctx, q, pgx.RowTo[string], containerManagersSQL, s.tenant)
		return err
	})
	return names, err
}

// ContainerManager gives one container manager. Options that are secret show as
// secret.Redacted.
func (s *Store) ContainerManager(ctx context.Context, name string) (m fleet.ContainerManager, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, containerManagerSQL, s.tenant, name).Scan(&m.Name, &m.Type, &m.Options)
		return orNotFound(err, "container manager", name)
	})
	return m, err
}

// PutContainerManager creates a container manager and gives it as ContainerManager
// does. They never change: the same one again is fine, a different one of that name,
// also by its secrets alone, is a Conflict.
func (s *Store) PutContainerManager(ctx context.Context, want fleet.ContainerManager) (m fleet.ContainerManager, err error) {
	if want.Options == nil {
		want.Options = map[string]any{}
	}
	text, err := json.Marshal(want.Options)
	if err != nil {
		return m, err
	}
	row := secret.Row(s.tenant, "container_manager", want.Name)
	sealed, id, err := s.db.seal(secret.NewText(text), row)
	if err != nil {
		return m, err
	}
	err = s.db.tx(ctx, func(ctx context.Context, q querier) error {
		err := q.QueryRow(ctx, insertContainerManagerSQL, s.tenant, want.Name, string(want.Type), shown(want.Options), sealed, id).Scan(&m.Name, &m.Type, &m.Options)
		if !isNoRows(err) {
			return err
		}
		var there []byte
		err = q.QueryRow(ctx, sealedContainerManagerSQL, s.tenant, want.Name).Scan(&m.Name, &m.Type, &m.Options, &there)
		if isNoRows(err) {
			return errAgain // deleted in between
		}
		if err != nil {
			return err
		}
		opened, err := s.db.sealer.Open(there, row)
		if err != nil {
			return err
		}
		if m.Type != want.Type || !sameJSON(opened.Reveal(), text) {
			return fleet.Errorf(fleet.Conflict, "container manager %q exists with another type or other options; delete it first to change it", want.Name)
		}
		return nil
	})
	if err != nil {
		return fleet.ContainerManager{}, err
	}
	return m, nil
}

// DeleteContainerManager deletes a container manager, also one that clusters name,
// and with it what it holds. The hosts stay in the state that they are in.
func (s *Store) DeleteContainerManager(ctx context.Context, name string) error {
	return s.db.tx(ctx, func(ctx context.Context, q querier) error {
		if _, err := one(ctx, q, scanNothing, claimContainerManagerSQL, s.tenant, name); err != nil {
			return orNotFound(err, "container manager", name)
		}
		// The foreign key would lock the nodes in any order, so they are locked in ours before.
		if _, err := q.Exec(ctx, claimNodesOfManagerSQL, s.tenant, name); err != nil {
			return err
		}
		_, err := q.Exec(ctx, deleteContainerManagerSQL, s.tenant, name)
		return err
	})
}

// secretOption matches the names of options whose values are secret. Those of the
// files of a certificate, certificate_path and certificate_key_path, it does not.
var secretOption = regexp.MustCompile(`(?i)token|password|passwd|passphrase|secret|credential|authorization|private[-_]?key|key[-_]?data|kubeconfig`)

// inURL matches whom a URL logs in as.
var inURL = regexp.MustCompile(`://[^/?#\s]*@`)

// shown gives options as anybody may see them, with secret.Redacted for every secret.
func shown(options map[string]any) map[string]any {
	out := make(map[string]any, len(options))
	for name, value := range options {
		if secretOption.MatchString(name) {
			out[name] = secret.Redacted
			continue
		}
		out[name] = shownValue(value)
	}
	return out
}

func shownValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return shown(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = shownValue(v[i])
		}
		return out
	case string:
		return inURL.ReplaceAllString(v, "://"+secret.Redacted+"@")
	}
	return value
}

// sameJSON compares two values by what they say.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
