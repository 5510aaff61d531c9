package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"text/tabwriter"

	"commissaire/internal/config"
	"commissaire/internal/secret"
	"commissaire/internal/store"
)

// ListKeys writes which sealing keys there are, which of them seals, and which
// are needed to open what is stored. A needed key that is not in the key file
// is an error, since its secrets cannot be opened.
func ListKeys(ctx context.Context, c *config.Config, out io.Writer) error {
	db, err := openDB(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	sealer, err := secret.OpenKeyFile(c.SealingKeyFile)
	if err != nil {
		return err
	}
	needed, err := db.KeysInUse(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tSEALS\tNEEDED")
	for _, id := range sealer.KeyIDs() {
		fmt.Fprintf(table, "%d\t%s\t%s\n", id, yes(id == sealer.PrimaryKeyID()), yes(slices.Contains(needed, id)))
		needed = slices.DeleteFunc(needed, func(n uint32) bool { return n == id })
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(needed) > 0 {
		return missingKeys(needed, c.SealingKeyFile)
	}
	return nil
}

func missingKeys(ids []uint32, path string) error {
	return fmt.Errorf("stored secrets are sealed with keys %v, which key file %s does not have; restore the key file that belongs to this database from your backup", ids, path)
}

// checkKeys refuses a key file that does not belong to the database: what is sealed there
// could not be opened, and what this process sealed could not be opened by others. A
// database that cannot be asked now is no reason not to start; the gauge
// commissaire_sealing_keys_missing goes on asking.
func checkKeys(ctx context.Context, db *store.DB, path string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	missing, err := db.MissingKeys(ctx)
	if err != nil {
		log.WarnContext(ctx, "could not check that the key file belongs to the database", "file", path, "error", err)
		return nil
	}
	if len(missing) > 0 {
		return missingKeys(missing, path)
	}
	return nil
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// Reseal seals all stored credentials with the key in use, and says of how many
// hosts it changed them. It may be cut off and run again.
func Reseal(ctx context.Context, c *config.Config) (changed int, err error) {
	db, err := openDB(ctx, c)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return db.Reseal(ctx)
}

// DropKey removes a key from a key file, unless stored credentials need it.
func DropKey(ctx context.Context, c *config.Config, path string, id uint32) error {
	of := *c
	of.SealingKeyFile = path
	db, err := openDB(ctx, &of)
	if err != nil {
		return err
	}
	defer db.Close()
	needed, err := db.KeysInUse(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(needed, id) {
		return fmt.Errorf("key %d still seals stored credentials and stays; run: commissaire key reseal", id)
	}
	return secret.DropKey(path, id)
}
