package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"commissaire/internal/fleet"
)

// InventoryHost is a host, who logs in there, and through which other host.
type InventoryHost struct {
	fleet.Host
	RemoteUser string
	Through    string // address of the bastion, also of one that its cluster has; "" for none
}

const inventorySQL = `SELECT ` + hostColumns + `, c.remote_user, ` + bastionOf + ` FROM host h
	JOIN host_creds c ON c.tenant = h.tenant AND c.address = h.address WHERE h.tenant = $1 ORDER BY h.address`

// Inventory lists all hosts with what it takes to reach them, keys aside, sorted by
// address.
func (s *Store) Inventory(ctx context.Context) (hosts []InventoryHost, err error) {
	err = s.db.read(ctx, func(ctx context.Context, q querier) error {
		hosts, err = collect(ctx, q, func(row pgx.CollectableRow) (h InventoryHost, err error) {
			h.Host, err = scanHostAnd(row, &h.RemoteUser, &h.Through)
			return h, err
		}, inventorySQL, s.tenant)
		return err
	})
	return hosts, err
}
